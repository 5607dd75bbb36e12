"""Recurrent cells: one file and one line here each. `find` turns a name or a user's file into a cell."""

from jaxrec.cells.cell import Cell as Cell, Event as Event
from jaxrec.cells.elman import Elman as Elman
from jaxrec.cells.find import find as find
from jaxrec.cells.gru import GRU as GRU
from jaxrec.cells.lstm import LSTM as LSTM
from jaxrec.cells.weights import bias as bias, orthogonal as orthogonal, weight as weight
