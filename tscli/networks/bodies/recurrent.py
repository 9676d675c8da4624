"""The memory of LSTMs and GRUs over sequences in which episodes end and begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tscli import devices
from tscli.config import MemoryConfig
from tscli.networks.bodies.contract import BaseBody
from tscli.networks.layers import feed_forward


class Recurrent(BaseBody):
    """Feed-forward layers, an LSTM or a GRU, and the layers that `hidden_after` asks for."""

    cell: type[nn.LSTM | nn.GRU]

    def __init__(self, inputs: int, config: MemoryConfig):
        super().__init__()
        self.layers = feed_forward(inputs, config.hidden, config.activation)
        width = config.hidden[-1] if config.hidden else inputs
        self.is_lstm = self.cell is nn.LSTM
        self.memory = self.cell(width, config.memory, config.memory_layers)
        for name, parameter in self.memory.named_parameters():
            if "weight" in name:
                nn.init.orthogonal_(parameter, 1.0)
            else:
                nn.init.zeros_(parameter)
        self.after = feed_forward(config.memory, config.hidden_after, config.activation)
        self.output_size = config.hidden_after[-1] if config.hidden_after else config.memory
        self.hidden_size = config.memory * config.memory_layers * (2 if self.is_lstm else 1)

    def forward(self, x: Tensor, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        y, hidden = self._remember(self.layers(x), hidden, reset)
        return self.after(y), hidden

    def _remember(self, x: Tensor, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        if reset is None:
            return self._run(x, hidden)
        hidden = hidden * (~reset[0]).unsqueeze(-1)
        if len(x) == 1:
            return self._run(x, hidden)
        if not devices.host_may_look(reset.device):
            return self._run_steps(x, hidden, reset)
        return self._run_split(x, hidden, reset) if reset[1:].any() else self._run(x, hidden)

    def _run(self, x: Tensor, hidden: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[T, N] without resets; `lengths` [N], on the CPU, cut columns short (their hidden state is taken there)."""
        if len(x) == 1 and self.memory.num_layers == 1:
            return self._run_cell(x, hidden)
        state = hidden.unflatten(-1, (-1, self.memory.num_layers, self.memory.hidden_size)).permute(1, 2, 0, 3)
        states = tuple(part.contiguous() for part in state)
        inputs = x if lengths is None else pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, last = self.memory(inputs, states if self.is_lstm else states[0])
        if lengths is not None:
            y = pad_packed_sequence(y)[0]
        state = torch.stack(last if self.is_lstm else (last,))
        return y, state.permute(2, 0, 1, 3).flatten(1)

    def _run_cell(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step of one layer, what acting is made of: a third of the time that the sequence kernel takes for it."""
        w_ih, w_hh, b_ih, b_hh = self.memory.all_weights[0]
        if self.is_lstm:
            h, c = torch.lstm_cell(x[0], hidden.chunk(2, dim=-1), w_ih, w_hh, b_ih, b_hh)
            return h.unsqueeze(0), torch.cat([h, c], dim=-1)
        h = torch.gru_cell(x[0], hidden, w_ih, w_hh, b_ih, b_hh)
        return h.unsqueeze(0), h

    def _run_steps(self, x: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """One cell after the other: the same calls whatever `reset` holds."""
        states = hidden.unflatten(-1, (-1, self.memory.num_layers, self.memory.hidden_size))
        lasts = []
        for layer, weights in enumerate(self.memory.all_weights):
            state = states[:, :, layer].unbind(1)
            outputs = []
            for t in range(len(x)):
                state = [torch.where(reset[t].unsqueeze(-1), 0.0, part) for part in state]
                if self.is_lstm:
                    state = torch.lstm_cell(x[t], state, *weights)
                else:
                    state = [torch.gru_cell(x[t], *state, *weights)]
                outputs.append(state[0])
            x = torch.stack(outputs)
            lasts.append(torch.stack(list(state), dim=1))
        return x, torch.stack(lasts, dim=2).flatten(1)

    def _run_split(self, x: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Steps after a reset in columns of their own: `_run_steps` gives the same numbers at T times the calls.

        Each reset adds a column, a copy of its env's, in which memory stays zero until the reset. `source` [T, N] is
        the column in which a step is computed.
        """
        steps, num_envs = x.shape[:2]
        later = reset.clone()
        later[0] = False  # seen to by the caller
        at, env = later.nonzero(as_tuple=True)  # in the order of time, so that an env's latest has the largest number
        if self.memory.num_layers > 1 or len(at) > num_envs:
            return self._run_packed(x, hidden, reset)
        source = torch.arange(num_envs, device=x.device).repeat(steps, 1)
        source[at, env] = torch.arange(num_envs, num_envs + len(at), device=x.device)
        source = source.cummax(dim=0).values
        closed = x.new_zeros(steps, num_envs + len(at), 1)
        closed[:, num_envs:, 0] = (torch.arange(steps, device=x.device)[:, None] < at).to(x.dtype)
        columns = torch.cat([torch.cat([x, x.index_select(1, env)], dim=1), closed], dim=-1)
        hidden = torch.cat([hidden, hidden.new_zeros(len(at), hidden.shape[-1])])
        y, last = self._run_gated(columns, hidden)
        return y.gather(1, source.unsqueeze(-1).expand(-1, -1, y.shape[-1])), last[source[-1]]

    def _run_gated(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One layer, where the last input is 1 for steps that leave a memory of zeros as it is.

        It closes the LSTM's input gate, or opens the GRU's update gate, so far that a sigmoid in float32 is exactly 0
        or 1. Unlike packed sequences, this keeps to torch's fast CPU kernel: a third of the time.
        """
        w_ih, w_hh, b_ih, b_hh = self.memory.all_weights[0]
        size, shut = self.memory.hidden_size, -1e4
        gate = w_ih.new_zeros(len(w_ih), 1)
        if self.is_lstm:
            gate[:size] = shut  # input, forget, cell, output
        else:
            gate[size : 2 * size] = -shut  # reset, update, new
        weights = [torch.cat([w_ih, gate], dim=1), w_hh, b_ih, b_hh]
        options = (True, 1, 0.0, self.training, False, False)  # biases, layers, dropout, train, both ways, batch first
        if self.is_lstm:
            h, c = hidden.chunk(2, dim=-1)
            y, h, c = torch.lstm(x, (h.unsqueeze(0).contiguous(), c.unsqueeze(0).contiguous()), weights, *options)
            return y, torch.cat([h[0], c[0]], dim=-1)
        y, h = torch.gru(x, hidden.unsqueeze(0), weights, *options)
        return y, h[0]

    def _run_packed(self, x: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Cut each env's column at its resets, run the pieces side by side as one padded batch, and put them back."""
        steps, num_envs = x.shape[:2]
        starts = reset.clone()
        starts[0] = True
        # Env-major, so that a piece is a run of neighbours.
        piece = starts.T.reshape(-1).cumsum(0) - 1
        first = starts.T.reshape(-1).nonzero().squeeze(1)
        position = torch.arange(steps * num_envs, device=x.device) - first[piece]
        lengths = torch.bincount(piece)
        padded = x.new_zeros(int(lengths.max()), len(first), x.shape[-1])
        padded[position, piece] = x.transpose(0, 1).reshape(-1, x.shape[-1])
        # Only the piece that opens a column carries its env's hidden state on.
        initial = hidden.new_zeros(len(first), hidden.shape[-1])
        initial[(first % steps == 0).nonzero().squeeze(1)] = hidden
        y, last = self._run(padded, initial, lengths.cpu())
        closing = piece.reshape(num_envs, steps)[:, -1]
        return y[position, piece].reshape(num_envs, steps, -1).transpose(0, 1), last[closing]
