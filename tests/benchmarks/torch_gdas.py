"""The published GDAS step in PyTorch, for the benchmark alone.

After D-X-Y/AutoDL-Projects: the index is taken on the host, only the sampled operation
of an edge runs, and the others enter as their weights of value 0.
"""

import torch
from torch import nn

EDGES = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


class Zero(nn.Module):
    def forward(self, x):
        return x.mul(0.0)


def relu_conv_norm(c_in, c_out, size, stride=1):
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(c_out, affine=False, track_running_stats=False),
    )


def operations(c):
    return nn.ModuleList(
        [
            Zero(),
            nn.Identity(),
            relu_conv_norm(c, c, 1),
            relu_conv_norm(c, c, 3),
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        ]
    )


class Cell(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.edges = nn.ModuleList([operations(c) for _ in EDGES])

    def forward(self, x, hard, index):
        nodes = [x]
        for target in range(1, 4):
            total = 0.0
            for e, (source, end) in enumerate(EDGES):
                if end == target:
                    k = index[e]
                    y = hard[e, k] * self.edges[e][k](nodes[source])
                    others = sum(hard[e, i] for i in range(5) if i != k)
                    total = total + y + others
            nodes.append(total)
        return nodes[-1]


class Residual(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.first = relu_conv_norm(c, 2 * c, 3, 2)
        self.second = relu_conv_norm(2 * c, 2 * c, 3)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(c, 2 * c, 1, bias=False)
        )

    def forward(self, x):
        return self.second(self.first(x)) + self.shortcut(x)


class Supernet(nn.Module):
    def __init__(self, channels, cells):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels, affine=False, track_running_stats=False),
        )
        self.stages = nn.ModuleList()
        self.reductions = nn.ModuleList()
        for stage in range(3):
            c = channels * 2**stage
            if stage:
                self.reductions.append(Residual(c // 2))
            self.stages.append(nn.ModuleList([Cell(c) for _ in range(cells)]))
        self.norm = nn.BatchNorm2d(c, affine=False, track_running_stats=False)
        self.head = nn.Linear(c, 10)
        self.logits = nn.Parameter(torch.zeros(len(EDGES), 5))

    def forward(self, x):
        noise = -torch.empty_like(self.logits).exponential_().log()
        q = torch.softmax((self.logits.log_softmax(-1) + noise) / 1.0, -1)
        index = q.argmax(-1, keepdim=True)
        hard = torch.zeros_like(q).scatter_(-1, index, 1.0) - q.detach() + q
        index = index[:, 0].tolist()
        x = self.stem(x)
        for stage, cells in enumerate(self.stages):
            if stage:
                x = self.reductions[stage - 1](x)
            for cell in cells:
                x = cell(x, hard, index)
        return self.head(torch.relu(self.norm(x)).mean((2, 3)))


def step(channels, cells, batch):
    """A function of the seed that runs one forward and backward pass."""
    torch.manual_seed(0)
    network = Supernet(channels, cells)
    images = torch.randn(batch, 3, 32, 32)
    labels = torch.arange(batch) % 10

    def run(seed):
        torch.manual_seed(seed)
        network.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        return loss.item()

    return run
