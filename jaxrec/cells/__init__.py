"""Recurrent cells: one file and one line here each. `find` turns a name or a user's file into a cell."""

from jaxrec.cells.antisymmetric import AntisymmetricRNN as AntisymmetricRNN
from jaxrec.cells.cell import Cell as Cell, Event as Event
from jaxrec.cells.clockwork import ClockworkRNN as ClockworkRNN
from jaxrec.cells.cornn import CoRNN as CoRNN
from jaxrec.cells.elman import Elman as Elman
from jaxrec.cells.exp_rnn import ExpRNN as ExpRNN
from jaxrec.cells.find import find as find
from jaxrec.cells.gru import GRU as GRU
from jaxrec.cells.indrnn import IndRNN as IndRNN
from jaxrec.cells.irnn import IRNN as IRNN
from jaxrec.cells.kinds import AffineCell as AffineCell, ElementwiseCell as ElementwiseCell
from jaxrec.cells.layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
from jaxrec.cells.lem import LEM as LEM
from jaxrec.cells.lru import LRU as LRU
from jaxrec.cells.lstm import LSTM as LSTM
from jaxrec.cells.mgu import MGU as MGU
from jaxrec.cells.min_gru import MinGRU as MinGRU
from jaxrec.cells.min_lstm import MinLSTM as MinLSTM
from jaxrec.cells.peephole_lstm import PeepholeLSTM as PeepholeLSTM
from jaxrec.cells.rglru import RGLRU as RGLRU
from jaxrec.cells.slstm import SLSTM as SLSTM
from jaxrec.cells.sru import SRU as SRU
from jaxrec.cells.tlstm import TLSTM as TLSTM
from jaxrec.cells.weights import bias as bias, orthogonal as orthogonal, weight as weight
