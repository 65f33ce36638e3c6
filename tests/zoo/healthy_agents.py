"""Reinforcement learning and slow teachers: noisy losses, and networks no gradient is meant for."""

from __future__ import annotations

import copy
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional

from tests.zoo.case import Case, Training
from tests.zoo.healthy_models import relu_mlp
from tests.zoo.healthy_tasks import blobs, healthy, spirals

_cases: list[Case] = []


def _observe(size: int) -> tuple[Tensor, Tensor]:
    """A contextual bandit: the best of four actions is the quadrant of the context."""
    context = torch.randn(size, 2)
    return context, (context[:, 0] > 0).long() + 2 * (context[:, 1] > 0).long()


@healthy(_cases, "REINFORCE with a running baseline: the loss says nothing, the regret falls")
def reinforce_bandit() -> Training:
    model = relu_mlp(2, 32, 3, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def run() -> list[float]:
        regrets, baseline = [], 0.25
        for _ in range(150):
            context, best = _observe(64)
            policy = Categorical(logits=model(context))
            action = policy.sample()
            reward = (action == best).float()
            loss = -((reward - baseline) * policy.log_prob(action)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            baseline += 0.1 * (reward.mean().item() - baseline)
            regrets.append(1 - reward.mean().item())
        return regrets

    return Training(model=model, optimizers=(optimizer,), run=run)


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.policy = nn.Linear(32, 4)
        self.critic = relu_mlp(2, 64, 3, 1)
        nn.init.orthogonal_(self.policy.weight, gain=0.01)

    def forward(self, context: Tensor) -> tuple[Categorical, Tensor]:
        return Categorical(logits=self.policy(self.actor(context))), self.critic(context)[:, 0]


@healthy(
    _cases, "separate actor and critic: the critic's loss is 100 times larger; the regret falls"
)
def actor_critic_different_scales() -> Training:
    model = ActorCritic()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def run() -> list[float]:
        regrets = []
        for _ in range(200):
            context, best = _observe(64)
            policy, value = model(context)
            action = policy.sample()
            reward = 10.0 * (action == best).float()
            advantage = (reward - value).detach()
            advantage = advantage / (advantage.std() + 1e-8)
            surprise = functional.mse_loss(value, reward)
            loss = 0.5 * surprise - (advantage * policy.log_prob(action)).mean()
            loss = loss - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            regrets.append(1 - reward.mean().item() / 10)
        return regrets

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "PPO-style clipped ratios: samples outside the clip give zero gradient by design")
def clipped_policy_gradient() -> Training:
    model = relu_mlp(2, 32, 3, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def run() -> list[float]:
        regrets = []
        for step in range(160):
            if step % 4 == 0:
                context, best = _observe(128)
                with torch.no_grad():
                    old = Categorical(logits=model(context))
                    action = old.sample()
                    before = old.log_prob(action)
                reward = (action == best).float()
                advantage = (reward - reward.mean()) / (reward.std() + 1e-8)
            ratio = torch.exp(Categorical(logits=model(context)).log_prob(action) - before)
            bounded = ratio.clamp(0.8, 1.2)
            loss = -torch.minimum(ratio * advantage, bounded * advantage).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            regrets.append(1 - reward.mean().item())
        return regrets

    return Training(model=model, optimizers=(optimizer,), run=run)


class Dqn(nn.Module):
    """Holds its own target network, which is called under no_grad and copied now and then."""

    def __init__(self, states: int = 6) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Embedding(states, 32), nn.ReLU(), nn.Linear(32, 2))
        self.target = copy.deepcopy(self.online)

    def td_loss(self, state: Tensor, action: Tensor, reward: Tensor, after: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = reward + 0.8 * self.target(after).amax(1)
        guess = self.online(state).gather(1, action[:, None])[:, 0]
        return functional.smooth_l1_loss(guess, wanted)


@healthy(_cases, "DQN on a chain: the target network is in the module and never gets a gradient")
def dqn_target_network() -> Training:
    model = Dqn()
    optimizer = torch.optim.Adam(model.online.parameters(), lr=0.01)

    def run() -> list[float]:
        errors, true = [], 5.0 * 0.8 ** torch.tensor([4, 3, 2, 1, 0, 0])
        for step in range(200):
            state, action = torch.randint(6, (64,)), torch.randint(2, (64,))
            after = (state + 2 * action - 1).clamp(0, 5)
            reward = (after == 5).float()
            loss = model.td_loss(state, action, reward, after)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 10 == 9:
                model.target.load_state_dict(model.online.state_dict())
            with torch.no_grad():
                value = model.online(torch.arange(6)).amax(1)
            errors.append((value - true).abs().mean().item())
        return errors

    return Training(model=model, optimizers=(optimizer,), run=run)


class WithAverage(nn.Module):
    """A net and its exponential moving average, side by side in the module tree."""

    def __init__(self, net: nn.Module, decay: float = 0.95) -> None:
        super().__init__()
        self.net = net
        self.average = copy.deepcopy(net).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self) -> None:
        pairs = zip(self.average.parameters(), self.net.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1 - self.decay)


@healthy(_cases, "weights averaged for evaluation live in the module, without a gradient by design")
def ema_of_weights() -> Training:
    model = WithAverage(relu_mlp(2, 64, 4, 2))
    optimizer = torch.optim.AdamW(model.net.parameters(), lr=5e-3)

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(spirals()), 120):
            loss = functional.cross_entropy(model.net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.update()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


@healthy(_cases, "mean teacher: consistency with the averaged net, whose branch is under no_grad")
def mean_teacher() -> Training:
    model = WithAverage(relu_mlp(16, 48, 3, 4))
    optimizer = torch.optim.SGD(model.net.parameters(), lr=0.05, momentum=0.9)

    def run() -> list[float]:
        losses = []
        for x, y in islice(cycle(blobs(spread=2.0)), 120):
            guess = model.net(x + 0.1 * torch.randn_like(x))
            with torch.no_grad():
                wanted = functional.softmax(model.average(x), dim=-1)
            consistency = functional.mse_loss(functional.softmax(guess, dim=-1), wanted)
            loss = functional.cross_entropy(guess[:16], y[:16]) + consistency
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.update()
            losses.append(loss.item())
        return losses

    return Training(model=model, optimizers=(optimizer,), run=run)


CASES: tuple[Case, ...] = tuple(_cases)
