"""Recurrent cells: one file and one line here each. `find` turns a name or a user's file into a cell."""

from jaxrec.cells.antisymmetric import AntisymmetricRNN as AntisymmetricRNN
from jaxrec.cells.attentive import Attentive as Attentive
from jaxrec.cells.causal_conv import CausalConv as CausalConv
from jaxrec.cells.cell import Cell as Cell, Event as Event
from jaxrec.cells.cfc import CfC as CfC
from jaxrec.cells.clockwork import ClockworkRNN as ClockworkRNN
from jaxrec.cells.cornn import CoRNN as CoRNN
from jaxrec.cells.decayed import Decayed as Decayed
from jaxrec.cells.delta_net import DeltaNet as DeltaNet
from jaxrec.cells.elman import Elman as Elman
from jaxrec.cells.exp_rnn import ExpRNN as ExpRNN
from jaxrec.cells.find import find as find
from jaxrec.cells.gated_delta_net import GatedDeltaNet as GatedDeltaNet
from jaxrec.cells.gla import GLA as GLA
from jaxrec.cells.gru import GRU as GRU
from jaxrec.cells.gru_ode import GRUODE as GRUODE
from jaxrec.cells.hgrn import HGRN as HGRN
from jaxrec.cells.hgrn2 import HGRN2 as HGRN2
from jaxrec.cells.hierarchical import HierarchicalRNN as HierarchicalRNN
from jaxrec.cells.indrnn import IndRNN as IndRNN
from jaxrec.cells.irnn import IRNN as IRNN
from jaxrec.cells.kinds import (
    AffineCell as AffineCell,
    Composite as Composite,
    ElementwiseCell as ElementwiseCell,
    MatrixCell as MatrixCell,
    WindowCell as WindowCell,
)
from jaxrec.cells.latent_cross import LatentCross as LatentCross
from jaxrec.cells.layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
from jaxrec.cells.lem import LEM as LEM
from jaxrec.cells.lru import LRU as LRU
from jaxrec.cells.lstm import LSTM as LSTM
from jaxrec.cells.mamba import Mamba as Mamba
from jaxrec.cells.mamba2 import Mamba2 as Mamba2
from jaxrec.cells.matrix import Erase as Erase, MatrixState as MatrixState, Rule as Rule
from jaxrec.cells.mgu import MGU as MGU
from jaxrec.cells.min_gru import MinGRU as MinGRU
from jaxrec.cells.min_lstm import MinLSTM as MinLSTM
from jaxrec.cells.mlstm import MLSTM as MLSTM
from jaxrec.cells.para_gru import ParaGRU as ParaGRU
from jaxrec.cells.para_lstm import ParaLSTM as ParaLSTM
from jaxrec.cells.peephole_lstm import PeepholeLSTM as PeepholeLSTM
from jaxrec.cells.phased_lstm import PhasedLSTM as PhasedLSTM
from jaxrec.cells.prnn import PRNN as PRNN
from jaxrec.cells.qrnn import QRNN as QRNN
from jaxrec.cells.rglru import RGLRU as RGLRU
from jaxrec.cells.rwkv7 import RWKV7 as RWKV7
from jaxrec.cells.s5 import S5 as S5
from jaxrec.cells.slstm import SLSTM as SLSTM
from jaxrec.cells.sru import SRU as SRU
from jaxrec.cells.time_lstm import TimeLSTM1 as TimeLSTM1, TimeLSTM2 as TimeLSTM2, TimeLSTM3 as TimeLSTM3
from jaxrec.cells.tlstm import TLSTM as TLSTM
from jaxrec.cells.user_gru import UserGRU as UserGRU
from jaxrec.cells.weights import bias as bias, orthogonal as orthogonal, weight as weight
from jaxrec.cells.wrapper import Wrapper as Wrapper
