"""Shapes as thick pieces: distance, bevel, light.

A piece of the shape is as high as its bevel lets it rise: the surface's normal comes from how far
a point lies inside the outline, smoothly, and from where the outline is nearest. One light shines
on everything, from the upper left. Lengths are in the shape's own frame (unit radius), y points
down, z towards the eye.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LIGHT = (-0.46, -0.62, 0.64)  # towards the light, of length 1 to two digits
BEVEL = 0.34  # width of the bevel
STEEP = 1.22  # the surface's angle at the outline, in radians; 0 is flat
_SMOOTH = 7  # the p of the L_p distance that rounds the ridges of the bevel
_AMBIENT, _TOP = 0.42, 0.90  # light that comes from everywhere; light on a level surface
_GLOSS, _SHINE = 0.62, 46  # strength and exponent of the highlight


def _star_corners(points: int, inner: float, outer: float) -> list[tuple[float, float]]:
    radii = (outer, inner) * points
    return [(r * math.sin(i * math.pi / points), -r * math.cos(i * math.pi / points)) for i, r in enumerate(radii)]


def _heart_corners(count: int = 40) -> list[tuple[float, float]]:
    corners = []
    for i in range(count):
        t = 2 * math.pi * i / count
        heart_y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((16 * math.sin(t) ** 3 / 16.5, -(heart_y + 2.5) / 16.5))
    return corners


_A, _B = 0.34, 0.95  # half the width and half the length of the cross's arms
_CORNERS = {
    "triangle": _star_corners(3, 0.53, 1.06)[::2],
    "star": _star_corners(5, 0.50, 1.08),
    "heart": _heart_corners(),
    "cross": [
        *((_A, -_B), (_A, -_A), (_B, -_A)),
        *((_B, _A), (_A, _A), (_A, _B)),
        *((-_A, _B), (-_A, _A), (-_B, _A)),
        *((-_B, -_A), (-_A, -_A), (-_A, -_B)),
    ],
}
_OUTER, _CUT, _AWAY = 0.98, 0.72, (0.46, -0.12)  # the moon: a disc's radius; radius and centre of what is cut off


class _Walls:
    """The walls of a piece, gathered one after the other: ``depth`` is the L_p distance to them
    (0 outside), ``slope`` (..., 2) its gradient turned outwards, shorter than 1 along ridges."""

    def __init__(self, like: Tensor):
        self.sum, self.away = torch.zeros_like(like), torch.zeros(*like.shape, 2)

    def add(self, distance: Tensor, outwards: Tensor) -> None:
        """distance: (...) to the wall, positive inside; outwards: (..., 2), of length 1."""
        near = distance.clamp(min=1e-3) ** -_SMOOTH
        self.sum += near
        self.away += (near / distance.clamp(min=1e-3))[..., None] * outwards

    def gathered(self) -> tuple[Tensor, Tensor]:
        depth = self.sum ** (-1 / _SMOOTH)
        return depth, self.away * (depth ** (_SMOOTH + 1))[..., None]


def distance(shape: str, p: Tensor) -> Tensor:
    """Signed distance of points p (..., 2) to the outline, (...), negative inside."""
    if shape == "circle":
        return p.norm(dim=-1) - 0.88
    if shape == "square":
        q = p.abs() - 0.72
        return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0) - 0.05
    if shape == "ring":
        return (p.norm(dim=-1) - 0.72).abs() - 0.24
    if shape == "moon":
        return _moon(p)
    return _polygon(p, _CORNERS[shape])


def walls(shape: str, p: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (...) below the surface's rim at points p (..., 2) inside the shape, and the slope
    outwards (..., 2)."""
    found = _Walls(p[..., 0])
    if shape in ("circle", "ring"):
        r = p.norm(dim=-1)
        out = p / r.clamp(min=1e-6)[..., None]
        found.add((0.88 if shape == "circle" else 0.96) - r, out)
        if shape == "ring":
            found.add(r - 0.48, -out)
    elif shape == "square":
        for axis in (0, 1):
            for side in (-1.0, 1.0):
                out = torch.zeros_like(p)
                out[..., axis] = side
                found.add(0.77 - side * p[..., axis], out)
    elif shape == "moon":
        r, q = p.norm(dim=-1), p - torch.tensor(_AWAY)
        cut = q.norm(dim=-1)
        found.add(_OUTER - r, p / r.clamp(min=1e-6)[..., None])
        found.add(cut - _CUT, -q / cut.clamp(min=1e-6)[..., None])
    else:
        inside = _polygon(p, _CORNERS[shape]) < 0
        for near in _sides(p, _CORNERS[shape]):
            away = near.norm(dim=-1)
            found.add(away, torch.where(inside, 1.0, -1.0)[..., None] * near / away.clamp(min=1e-6)[..., None])
    return found.gathered()


def shine(depth: Tensor, slope: Tensor, angle: Tensor, relief: Tensor) -> tuple[Tensor, Tensor]:
    """Light on a piece: what its colour is multiplied with, and the highlight added to it.

    depth (B, H, W), slope (B, H, W, 2) in the shape's frame, which is turned by ``angle`` (B, 1,
    1) in the picture; relief (B, 1, 1): 1 is the whole bevel, 0 flat paper without light. Returns
    two tensors (B, H, W), so that picture = first * albedo + second, in [0, 1].
    """
    fall = (1 - depth / BEVEL).clamp(0, 1)
    tilt = STEEP * relief * fall * fall * (2 - fall)
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = cos * slope[..., 0] - sin * slope[..., 1], sin * slope[..., 0] + cos * slope[..., 1]
    length = torch.hypot(x, y)
    side = torch.sin(tilt * length.clamp(max=1)) / length.clamp(min=1e-6)
    return lit(x * side, y * side, relief)


def lit(x: Tensor, y: Tensor, relief: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """The same of a surface whose normal is (x, y, sqrt(1 - x^2 - y^2)) (Blinn-Phong)."""
    z = (1 - x * x - y * y).clamp(min=0).sqrt()
    lx, ly, lz = LIGHT
    facing = (x * lx + y * ly + z * lz).clamp(min=0)
    level = _TOP - _AMBIENT
    bright = _AMBIENT + level * torch.where(facing < lz, facing / lz, 1 + (facing - lz) / (1 - lz) * (1 - _TOP) / level)
    half = math.sqrt(2 * (1 + lz))
    gloss = _GLOSS * ((x * lx + y * ly + z * (lz + 1)) / half).clamp(0, 1) ** _SHINE * relief
    return (1 + relief * (bright - 1)) * (1 - gloss), gloss


def _sides(p: Tensor, corners: Sequence[tuple[float, float]]):
    """From points p (..., 2) to the nearest point of each side of a closed polygon, (..., 2) each."""
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]]):
        ex, ey = bx - ax, by - ay
        wx, wy = p[..., 0] - ax, p[..., 1] - ay
        along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        yield torch.stack((along * ex - wx, along * ey - wy), dim=-1)


def _polygon(p: Tensor, corners: Sequence[tuple[float, float]]) -> Tensor:
    nearest = torch.full(p.shape[:-1], torch.inf)
    inside = torch.zeros(p.shape[:-1], dtype=torch.bool)
    for near, (ax, ay), (bx, by) in zip(_sides(p, corners), corners, [*corners[1:], corners[0]]):
        nearest = torch.minimum(nearest, near.square().sum(-1))
        if by != ay:
            crosses = (ay > p[..., 1]) != (by > p[..., 1])
            inside ^= crosses & (p[..., 0] - ax < (bx - ax) * (p[..., 1] - ay) / (by - ay))
    return torch.where(inside, -1.0, 1.0) * nearest.sqrt()


def _moon(p: Tensor) -> Tensor:
    """A disc less a disc; beyond the two tips it is the tip that is nearest."""
    apart = math.hypot(*_AWAY)
    x = (p * torch.tensor(_AWAY)).sum(-1) / apart
    y = ((p[..., 1] * _AWAY[0] - p[..., 0] * _AWAY[1]) / apart).abs()
    tip_x = (_OUTER**2 - _CUT**2 + apart**2) / (2 * apart)
    tip_y = math.sqrt(_OUTER**2 - tip_x**2)
    arcs = torch.maximum(p.norm(dim=-1) - _OUTER, _CUT - torch.hypot(x - apart, y))
    beyond = x * tip_y - y * tip_x > apart * (tip_y - y).clamp(min=0)
    return torch.where(beyond, torch.hypot(x - tip_x, y - tip_y), arcs)
