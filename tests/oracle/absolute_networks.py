"""absLRP through timm's VGG, ResNet and ViT, module by module, as functions from a seed to a map of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vgg import VGG
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from tests.oracle import absolute_magnitude as rule

Back = Callable[[Tensor], Tensor]


def record(network: nn.Module, x: Tensor) -> tuple[dict[nn.Module, Tensor], Tensor]:
    """The input of every module, and the logits."""
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [
        m.register_forward_pre_hook(lambda module, given: inputs.__setitem__(module, given[0]))
        for m in network.modules()
    ]
    with torch.no_grad():
        logits = network(x)
    for hook in hooks:
        hook.remove()
    return inputs, logits


def _chain(last_first: Sequence[nn.Module], v: Tensor) -> Tensor:
    """Modules in reverse, without those that change their input in place."""
    for module in reversed(last_first):
        v = module(v.clone())
    return v


def _normalised(norm: nn.LayerNorm, v: Tensor) -> Tensor:
    return rule.centred(v, norm.eps, norm.weight, norm.bias)


def _queries_keys_values(attention: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count, tokens, _ = x.shape
    q, k, v = attention.qkv(x).reshape(count, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    return q * attention.scale, k, v


def _attended(attention: nn.Module, x: Tensor) -> Tensor:
    q, k, v = _queries_keys_values(attention, x)
    mixed = rule.probabilities(q @ k.transpose(-2, -1)) @ v
    return attention.proj(mixed.transpose(1, 2).reshape(x.shape))


class Replica:
    """Backward through the modules of one network; `reference` adds what the released code does beside the rule."""

    def __init__(self, network: nn.Module, x: Tensor, *, reference: bool = False) -> None:
        self.network, self.x, self.reference = network, x, reference
        self.inputs, self.logits = record(network, x)

    def through(self, module: nn.Module, r: Tensor, divide: bool = True) -> Tensor:
        x = self.inputs[module]
        if isinstance(module, nn.Linear):
            return rule.linear(module, x, r)
        if isinstance(module, nn.Conv2d):
            return rule.convolution(module, x, r)
        if isinstance(module, nn.BatchNorm2d):
            return rule.batch_norm(module, x, r)
        if isinstance(module, nn.LayerNorm):
            return rule.layer_norm(module, x, r)
        if isinstance(module, nn.Sequential):
            for part in reversed(module):
                r = self.through(part, r)
            return r
        if isinstance(module, nn.Identity | nn.Dropout):
            return r
        return rule.function(module, x, r, divide)

    def map(self, seed: Tensor) -> Tensor:
        """The map of one pass, its absolute sum 1 in each sample."""
        ways = {VGG: self._vgg, ResNet: self._resnet, VisionTransformer: self._vit}
        return ways[type(self.network)](seed).detach()

    def contrast(self) -> Tensor:
        return rule.contrast(self.map, self.logits)

    def _vgg(self, r: Tensor) -> Tensor:
        network = self.network
        if self.reference:
            r = rule.filtered(self.logits, r)
        head = network.head
        r = self.through(head.fc, r).reshape(self._pool_output(head).shape)
        r = rule.function(head.global_pool.pool, self.inputs[head.global_pool], r)
        for module in (
            network.pre_logits.act2,
            network.pre_logits.fc2,
            network.pre_logits.act1,
            network.pre_logits.fc1,
        ):
            r = self.through(module, r)
        for module in reversed(network.features):
            r = self.through(module, r, divide=not (self.reference and isinstance(module, nn.MaxPool2d)))
        return r

    def _pool_output(self, head: nn.Module) -> Tensor:
        return head.global_pool.pool(self.inputs[head.global_pool])

    def _resnet(self, r: Tensor) -> Tensor:
        network = self.network
        pool = network.global_pool
        r = self.through(network.fc, r).reshape(pool.pool(self.inputs[pool]).shape)
        r = rule.function(pool.pool, self.inputs[pool], r)
        for layer in (network.layer4, network.layer3, network.layer2, network.layer1):
            for block in reversed(layer):
                r = self._residual(block, r)
        for module in (network.maxpool, network.act1, network.bn1, network.conv1):
            r = self.through(module, r)
        return r

    def _residual(self, block: BasicBlock | Bottleneck, r: Tensor) -> Tensor:
        x = self.inputs[block]
        last = [block.bn2, block.conv2, block.act1, block.bn1, block.conv1]
        act = block.act2
        if isinstance(block, Bottleneck):
            last, act = [block.bn3, block.conv3, block.act2, *last], block.act3
        r = self.through(act, r)
        if block.downsample is None:
            r_branch, r_shortcut = rule.residual(lambda v: _chain(last, v), x, r, self.reference)
        else:
            with torch.no_grad():
                r_branch, r_shortcut = _chain(last, x), block.downsample(x)
            r_branch, r_shortcut = rule.added(r_branch, r_shortcut, r)
        for module in last:
            r_branch = self.through(module, r_branch)
        if block.downsample is not None:
            r_shortcut = self.through(block.downsample, r_shortcut)
        return r_branch + r_shortcut

    def _vit(self, r: Tensor) -> Tensor:
        network = self.network
        r = self.through(network.head, r)
        tokens = network.norm(self.inputs[network.norm]).detach()
        r = rule.function(lambda v: v[:, 0], tokens, r)
        r = self.through(network.norm, r)
        for block in reversed(network.blocks):
            r = self._block(block, r)
        with torch.no_grad():
            patches = network.patch_embed(self.x)
            embedded = torch.cat([network.cls_token.expand(len(patches), -1, -1), patches], 1)
        r, _ = rule.added(embedded, network.pos_embed.detach().expand_as(embedded), r)
        side = network.patch_embed.grid_size
        r = r[:, 1:].transpose(1, 2).reshape(len(r), -1, *side)
        return self.through(network.patch_embed.proj, r)

    def _block(self, block: Block, r: Tensor) -> Tensor:
        x, middle = self.inputs[block], self.inputs[block.norm2]
        fed = lambda v: block.mlp(_normalised(block.norm2, v))  # noqa: E731
        r_branch, r = rule.residual(fed, middle, r, self.reference)
        r_branch = self.through(block.mlp.fc2, r_branch)
        if self.reference:
            r_branch = rule.filtered(self.inputs[block.mlp.fc2], r_branch)
        for module in (block.mlp.act, block.mlp.fc1, block.norm2):
            r_branch = self.through(module, r_branch)
        attended = lambda v: _attended(block.attn, _normalised(block.norm1, v))  # noqa: E731
        r_branch, r = rule.residual(attended, x, r + r_branch, self.reference)
        return r + self.through(block.norm1, self._attention(block.attn, r_branch))

    def _attention(self, attention: nn.Module, r: Tensor) -> Tensor:
        x = self.inputs[attention.qkv]
        count, tokens, width = x.shape
        with torch.no_grad():
            q, k, v = _queries_keys_values(attention, x)
            scores = q @ k.transpose(-2, -1)
            weights = scores.softmax(-1)
        r = self.through(attention.proj, r)
        r = r.reshape(count, tokens, attention.num_heads, -1).transpose(1, 2)
        r_weights, r_v = rule.multiplied(weights, v, r)
        r_q, r_kt = rule.multiplied(q, k.transpose(-2, -1), rule.softmax(scores, r_weights))
        together = torch.stack([r_q, r_kt.transpose(-2, -1), r_v]).permute(1, 3, 0, 2, 4)
        return self.through(attention.qkv, together.reshape(count, tokens, 3 * width))
