"""Things in front of faces whose place is known: hands, hair, cloth, cups, dark glasses, whatever.

All are drawn a batch at a time, where the crops are. A hand is tapered capsules, shaded as round
bodies; hair is curved locks with strands in them; cloth and glasses are placed by the face's own
axes. None of it looks real, but much of it varies: colours, and the skin's own colour too, light,
edges, shadows, places.

Random numbers come from torch's global stream. Lengths are in pixels of the crop; ``e`` is the
distance of the eyes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Layer(NamedTuple):
    """What is drawn over B crops.

    Attributes:
        colour: (B, 3, S, S) in [0, 1].
        share: (B, 1, S, S) in [0, 1], how far it covers what is behind.
        density: (B, 1, 1, 1) in [0, 1]: dark lenses cover, and yet show what is behind.
    """

    colour: Tensor
    share: Tensor
    density: Tensor


class Scene(NamedTuple):
    """What layers are drawn over.

    Attributes:
        images: (B, 3, S, S) in [0, 1];  points: (B, 5, 2).
        skin: (B, 3), the mean colour of the bare face, in [0, 1].
        other: (B, 3, S, S), pictures of something else.
    """

    images: Tensor
    points: Tensor
    skin: Tensor
    other: Tensor

    @property
    def field(self) -> Tensor:
        """The pixels' centres (1, S, S, 2)."""
        centres = torch.arange(self.images.shape[3], device=self.images.device) + 0.5
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return torch.stack([x, y], -1)[None]

    def even(self, *shape: int) -> Tensor:
        """Evenly distributed in [-1, 1], (B, …)."""
        return 2 * self.share(*shape) - 1

    def share(self, *shape: int) -> Tensor:
        """Evenly distributed in [0, 1], (B, …)."""
        return torch.rand(len(self.images), *shape).to(self.images.device)

    def normal(self, *shape: int) -> Tensor:
        """Normally distributed (B, …)."""
        return torch.randn(len(self.images), *shape).to(self.images.device)

    def some(self, probability: float) -> Tensor:
        """True as often (B,)."""
        return self.share() < probability

    @property
    def eyes(self) -> Tensor:
        """The distance of the eyes (B,), at least a tenth of the crop."""
        side = (self.points[:, 1] - self.points[:, 0]).norm(dim=1)
        # Of a face seen from the side it says little: eyes and mouth are as far apart.
        down = (self.points[:, 3:].mean(1) - self.points[:, :2].mean(1)).norm(dim=1)
        return torch.maximum(side, 0.95 * down).clamp(min=self.images.shape[3] / 10)

    def spot(self, spread: float) -> Tensor:
        """A place on each face (B, 2): about one of the points, a cheek, the chin or the brow."""
        left, right, nose, one, two = self.points.unbind(1)
        mouth, middle = (one + two) / 2, (left + right) / 2
        chin, brow = mouth + 0.45 * (mouth - nose) * 2, middle - 0.5 * (nose - middle)
        cheeks = [(left + one) / 2, (right + two) / 2]
        places = torch.stack([left, right, nose, mouth, mouth, chin, brow, *cheeks], 1)
        row = torch.randint(places.shape[1], (len(places),)).to(places.device)
        about = places[torch.arange(len(places), device=places.device), row]
        return about + spread * self.eyes[:, None] * self.normal(2)

    def axes(self) -> tuple[Tensor, Tensor]:
        """Each pixel's place (B, S, S) in the face's axes, in units of e: across, and down."""
        left, right = self.points[:, 0], self.points[:, 1]
        middle = (left + right) / 2
        down = self.points[:, 3:].mean(1) - middle
        down = down / down.norm(dim=1, keepdim=True).clamp(min=1)
        across = torch.stack([down[:, 1], -down[:, 0]], 1)
        offset = (self.field - middle[:, None, None]) / self.eyes.view(-1, 1, 1, 1)
        # Of a face turned away, the middle between the eyes is not that of the face.
        u = (offset * across[:, None, None]).sum(-1)
        return u, (offset * down[:, None, None]).sum(-1)


_SKINS = torch.tensor(
    [
        [0.95, 0.80, 0.72], [0.90, 0.72, 0.62], [0.84, 0.64, 0.52], [0.78, 0.57, 0.45],
        [0.68, 0.47, 0.36], [0.55, 0.37, 0.28], [0.43, 0.29, 0.22], [0.31, 0.21, 0.17],
    ]
)  # fmt: skip


def hand(scene: Scene, same: float = 0.6) -> Layer:
    """A hand with its forearm; a share ``same`` of them in the face's own colour."""
    spots = _hand_bones(scene)
    field, eyes = scene.field, scene.eyes
    length = eyes * (2.9 + 0.6 * scene.even())
    # From below or from the sides; seldom from above.
    turn = math.pi * 0.42 * scene.normal()
    flip = torch.where(scene.some(0.5), 1.0, -1.0)
    held = torch.stack([0.12 * scene.even(), 0.2 + 0.75 * scene.share()], 1)
    target = scene.spot(0.3)

    def placed(point: Tensor) -> Tensor:
        x, y = ((point - held) * length[:, None]).unbind(1)
        x = x * flip
        sine, cosine = turn.sin(), turn.cos()
        # Fingers point up, which is towards smaller y.
        return target + torch.stack([x * cosine + y * sine, x * sine - y * cosine], 1)

    height = field.new_full((len(length), *field.shape[1:3]), -1e3)
    share = torch.zeros_like(height)
    side = torch.zeros(*height.shape, 2, device=height.device)
    tip = torch.zeros_like(height)
    soft = 0.7 + 1.0 * scene.share()
    for start, end, first, second, level, last in spots:
        a, b = placed(start), placed(end)
        r, s = first * length, second * length
        along = (b - a)[:, None, None]
        t = ((field - a[:, None, None]) * along).sum(-1) / along.square().sum(-1).clamp(min=1)
        t = t.clamp(0, 1)
        off = field - a[:, None, None] - t[..., None] * along
        radius = _wide(r) + _wide(s - r) * t
        far = off.norm(dim=-1)
        share = torch.maximum(share, ((radius - far) / _wide(soft) + 0.5).clamp(0, 1))
        here = (radius.square() - far.square()).clamp(min=0).sqrt() + level * _wide(length)
        here = torch.where(far < radius + 1, here, -2e3)
        above = here > height
        height = torch.where(above, here, height)
        side = torch.where(above[..., None], off / radius[..., None], side)
        tip = torch.where(above, t * last, tip)

    # Round bodies in the light of a lamp; where two meet, the slopes make a dark line.
    lamp = math.pi * scene.even()
    slant = 0.5 + 0.5 * scene.share()
    light = torch.stack([lamp.cos() * slant, lamp.sin() * slant], 1)[:, None, None]
    front = (1 - side.square().sum(-1)).clamp(min=0).sqrt()
    lit = (side * light).sum(-1) * 0.7 + front
    strength = _wide(0.15 + 0.5 * scene.share())
    shade = (1 + strength * (lit - 0.85)) * (1 + 0.12 * _clouds(scene, 9)[:, 0])
    shade = shade * (1 + 0.03 * _clouds(scene, 60)[:, 0])
    tone = _tone(scene, same)
    red = torch.tensor([1.06, 0.93, 0.92], device=tone.device)
    blush = (tip * _wide(scene.share()))[:, None]
    colour = tone[:, :, None, None] * shade[:, None]
    colour = colour.lerp(colour * red.view(1, 3, 1, 1), blush)
    colour = _nails(scene, colour, spots, placed, length)
    return Layer(colour.clamp(0, 1), share[:, None], _ones(scene))


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _ones(scene: Scene) -> Tensor:
    return scene.images.new_ones(len(scene.images), 1, 1, 1)


def _tone(scene: Scene, same: float) -> Tensor:
    """The face's own colour, a little off, or another skin's (B, 3)."""
    own = scene.skin * (1 + 0.06 * scene.normal(1) + 0.02 * scene.normal(3))
    skins = _SKINS.to(own.device)
    row = torch.randint(len(skins), (len(own),)).to(own.device)
    # In the light that the face is in: as bright on the whole.
    gain = 0.5 + 0.7 * scene.share(1)
    other = (skins[row] + 0.04 * scene.normal(3)) * gain
    return torch.where(scene.some(same)[:, None], own, other).clamp(0.02, 1)


_Bone = tuple[Tensor, Tensor, Tensor, Tensor, float, float]
"""Start and end (B, 2), radii there (B,), how near to the viewer, and 1 if it is a finger's last.

In lengths of a hand from the wrist to the tip of the middle finger; y up along the fingers.
"""


def _hand_bones(scene: Scene) -> list[_Bone]:
    count, device = len(scene.images), scene.images.device

    def full(value: float) -> Tensor:
        return torch.full((count,), value, device=device)

    slim = 0.85 + 0.3 * scene.share()
    fist, point = scene.some(0.2), scene.some(0.15)
    spread = 0.04 + 0.25 * scene.share().square()
    bend = 0.25 * scene.normal()
    bones: list[_Bone] = []
    wrist = torch.zeros(count, 2, device=device)
    elbow = torch.stack([0.35 * scene.normal(), full(-1.6)], 1)
    bones.append((wrist, elbow, 0.15 * slim, 0.2 * slim, -0.06, 0.0))
    for i, (x, y, long) in enumerate(
        ((-0.165, 0.49, 0.40), (-0.055, 0.52, 0.47), (0.06, 0.50, 0.43), (0.165, 0.44, 0.33))
    ):
        knuckle = torch.stack([full(x) * (1 + spread), full(y)], 1)
        root = torch.stack([full(0.62 * x), full(0.04)], 1)
        bones.append((root, knuckle, 0.095 * slim, 0.07 * slim, -0.03, 0.0))
        # A finger: three bones, each bent a little further, shorter where it is folded.
        seen = 1 - 0.25 * scene.share().square()
        folded = fist | (point & torch.tensor(i > 0, device=device))
        seen = torch.where(folded, full(0.38), seen)
        angle = (i - 1.5) * spread + 0.05 * scene.normal() + 0.15 * bend
        at, radius = knuckle, 0.052 * slim
        for k, part in enumerate((0.45, 0.31, 0.24)):
            reach = long * part * seen
            way = torch.stack([angle.sin(), angle.cos()], 1)
            end = at + way * reach[:, None]
            thin = radius * (0.93 if k < 2 else 0.85)
            bones.append((at, end, radius, thin, 0.006 * k, float(k == 2)))
            at, radius, angle = end, thin, angle + 0.3 * bend + 0.06 * scene.normal()
    angle = -0.25 - 0.7 * scene.share()
    at, radius = torch.stack([full(-0.12), full(0.1)], 1), 0.085 * slim
    for k, part in enumerate((0.24, 0.17, 0.13)):
        end = at + part * torch.stack([angle.sin(), angle.cos()], 1)
        thin = radius * (0.8 if k == 0 else 0.9)
        bones.append((at, end, radius, thin, 0.01 * k, float(k == 2)))
        at, radius, angle = end, thin, angle + 0.35 * scene.share()
    return bones


def _nails(
    scene: Scene,
    colour: Tensor,
    bones: list[_Bone],
    placed: Callable[[Tensor], Tensor],
    length: Tensor,
) -> Tensor:
    """Nails on half of the hands; some are painted."""
    back = scene.some(0.5)
    painted = scene.some(0.3)[:, None]
    pale = (scene.skin * 1.12 + torch.tensor([0.05, 0.02, 0.03], device=colour.device)).clamp(0, 1)
    nail = torch.where(painted, scene.share(3), pale)[:, :, None, None]
    for start, end, _, thin, _, last in bones:
        if not last:
            continue
        a, b = placed(start), placed(end)
        way = F.normalize(b - a, dim=1)[:, None, None]
        off = scene.field - (b - 0.02 * length[:, None] * way[:, 0, 0])[:, None, None]
        along = (off * way).sum(-1) / _wide(0.045 * length)
        across = (off[..., 0] * way[..., 1] - off[..., 1] * way[..., 0]) / _wide(
            0.72 * thin * length
        )
        far = (along.square() + across.square()).sqrt()
        inside = ((1 - far) * 3).clamp(0, 1) * _wide(back.float() * 0.85)
        glint = 1 + 0.25 * (-8 * (across + 0.3).square()).exp()
        colour = colour.lerp(nail * glint[:, None], inside[:, None])
    return colour


def thing(scene: Scene) -> Layer:
    """Something: an ellipse, a box with round corners, a blob or a bar, of any stuff."""
    count, eyes = len(scene.images), scene.eyes
    centre = scene.spot(0.6)
    long = torch.where(scene.some(0.25), 3.0 + 0 * eyes, 0 * eyes + 1)
    half = eyes[:, None] * (0.15 + 1.1 * scene.share(2).square())
    half = half * torch.stack([long, 1 / long.sqrt()], 1)
    turn = math.pi * scene.share()
    offset = scene.field - centre[:, None, None]
    cosine, sine = _wide(turn.cos()), _wide(turn.sin())
    x = (offset[..., 0] * cosine + offset[..., 1] * sine) / _wide(half[:, 0])
    y = (offset[..., 1] * cosine - offset[..., 0] * sine) / _wide(half[:, 1])
    # Superellipses: from ellipses (2) to boxes.
    power = _wide(torch.where(scene.some(0.5), 2 + 0 * eyes, 2 + 12 * scene.share()))
    far = (x.abs().clamp(1e-4, 9).pow(power) + y.abs().clamp(1e-4, 9).pow(power)).pow(1 / power)
    wavy = _wide(torch.where(scene.some(0.35), 0.5 * scene.share(), 0 * eyes))
    far = far + wavy * _clouds(scene, 6)[:, 0]
    soft = _wide(half.amin(1) / (0.7 + 1.3 * scene.share()))
    share = ((1 - far) * soft + 0.5).clamp(0, 1)[:, None]
    round_ = 1 - 0.25 * _wide(scene.share()) * (x * _wide(scene.even()) + far.square() * 0.6)
    assert len(share) == count
    return Layer((_stuff(scene) * round_[:, None]).clamp(0, 1), share, _ones(scene))


def held(scene: Scene) -> Layer:
    """A cup, a phone or a microphone at the mouth or the cheek, mostly from below."""
    eyes = scene.eyes
    mouth = scene.points[:, 3:].mean(1)
    kind = scene.share()
    at = torch.where((kind < 0.7)[:, None], mouth, scene.spot(0.2))
    at = at + eyes[:, None] * scene.normal(2) * 0.3
    turn = 0.5 * scene.normal()
    offset = (scene.field - at[:, None, None]) / eyes.view(-1, 1, 1, 1)
    cosine, sine = _wide(turn.cos()), _wide(turn.sin())
    x = offset[..., 0] * cosine + offset[..., 1] * sine
    y = offset[..., 1] * cosine - offset[..., 0] * sine
    soft = _wide(eyes / (0.8 + scene.share()))

    # A cup, whose rim is at the mouth, narrower below, with a handle; or a phone, upright.
    wide, high = 0.35 + 0.4 * scene.share(), 0.5 + 0.9 * scene.share()
    narrow = _wide(wide) * (1 - 0.18 * y.clamp(0, 2))
    body = torch.maximum(x.abs() - narrow, (y - _wide(high) + 0.1).abs() - _wide(high))
    ring = ((x - _wide(wide + 0.1)).square() + (y - _wide(high)).square()).sqrt()
    handle = (ring - _wide(0.3 * high)).abs() - 0.07
    cup = torch.minimum(body, torch.where(_wide(kind) < 0.2, handle, body))
    # A microphone: a ball on a stick.
    ball = _wide(0.22 + 0.2 * scene.share())
    head = (x.square() + y.square()).sqrt() - ball
    stick = torch.maximum(x.abs() - ball * 0.55, -y)
    mike = torch.minimum(head, stick)
    far = torch.where(_wide(kind) < 0.7, cup, mike)
    share = (0.5 - far * soft).clamp(0, 1)[:, None]
    shade = 1 + _wide(0.5 * scene.share()) * (x / _wide(wide)).clamp(-1, 1) * _wide(scene.even())
    stuff = _stuff(scene) * shade[:, None]
    mesh = 0.25 + 0.2 * ((x * 40).sin() * (y * 40).sin())
    ball_now = ((_wide(kind) >= 0.7) & (head < 0))[:, None]
    return Layer(torch.where(ball_now, mesh[:, None], stuff).clamp(0, 1), share, _ones(scene))


_LOCKS = 9


def hair(scene: Scene) -> Layer:
    """Locks that hang over the face, from above or from the sides, with strands in them."""
    count, eyes = len(scene.images), scene.eyes
    middle = scene.points[:, :2].mean(1)
    turn = 0.75 * scene.normal()
    offset = (scene.field - middle[:, None, None]) / eyes.view(-1, 1, 1, 1)
    cosine, sine = _wide(turn.cos()), _wide(turn.sin())
    x = offset[..., 0] * cosine + offset[..., 1] * sine
    y = offset[..., 1] * cosine - offset[..., 0] * sine
    # All hang alike, from y = -1.3 down to where each ends.
    slope, curve = 0.6 * scene.normal(), 0.3 * scene.normal()
    ends = 0.9 * scene.share() - 0.35 + 0.8 * scene.some(0.25)
    about, wide = 0.8 * scene.normal(), 0.25 + 0.9 * scene.share()
    tone = torch.where(scene.some(0.6), 0.25 * scene.share(), 0.8 * scene.share())
    warm = torch.stack([1 + 0 * tone, 0.65 + 0.3 * scene.share(), 0.35 + 0.6 * scene.share()], 1)
    colour = (tone + 0.03)[:, None] * warm
    share = scene.images.new_zeros(count, *x.shape[1:])
    shade = torch.ones_like(share)
    for _ in range(_LOCKS):
        down = y + 1.3
        line = _wide(about + wide * scene.even()) + _wide(slope + 0.15 * scene.normal()) * down
        line = line + _wide(curve + 0.1 * scene.normal()) * down.square()
        tip = _wide(ends + 0.3 * scene.normal())
        thick = _wide(0.02 + 0.16 * scene.share()) * ((tip - y) * 2.5).clamp(0, 1).sqrt()
        off = (x - line) / thick.clamp(min=1e-3)
        inside = ((1 - off.abs()) * thick * _wide(eyes) + 0.3).clamp(0, 1) * (thick > 0)
        # Strands: some let the skin through.
        wave = (off * _wide(4 + 8 * scene.share()) + _wide(9 * scene.share()) + 2 * y).sin()
        loose = _wide(torch.where(scene.some(0.4), 0.9 + 0 * eyes, 0 * eyes))
        inside = inside * (1 - loose * (0.5 + 0.5 * wave)).clamp(0, 1)
        shade = torch.where(inside > 0.3, 1 + 0.35 * wave - 0.2 * off.abs(), shade)
        share = torch.maximum(share, inside)
    gleam = 1 + 0.5 * _clouds(scene, 5)[:, 0] * _wide(scene.share())
    drawn = colour[:, :, None, None] * (shade * gleam)[:, None]
    return Layer(drawn.clamp(0, 1), share[:, None], _ones(scene))


def cloth(scene: Scene) -> Layer:
    """A surgical mask, a scarf up to the nose, or a cap down to the brows."""
    u, v = scene.axes()
    eyes = scene.eyes
    kind = _wide(scene.share())
    tilt, bow = _wide(0.06 * scene.normal()), _wide(0.1 + 0.3 * scene.share())
    top = _wide(0.45 + 0.3 * scene.even())
    edge = top + bow * u.square() + tilt * u
    # The mask narrows towards the chin and is held by straps.
    low = _wide(1.95 + 0.25 * scene.normal())
    narrow = _wide(1.0 + 0.1 * scene.normal()) - 0.25 * (v - 0.6).clamp(min=0)
    mask = torch.maximum(torch.maximum(edge - v, v - low), u.abs() - narrow)
    straps = torch.minimum((v - top - 0.2 + 0.25 * u.abs()).abs(), (v - 1.5 + 0.4 * u.abs()).abs())
    straps = torch.maximum(straps - 0.025, 0.9 - u.abs())
    scarf = _wide(0.8 + 0.4 * scene.even()) + bow * u.square() + tilt * u - v
    brow = _wide(-0.45 + 0.15 * scene.normal())
    cap = v - brow + _wide(0.25 * scene.even()) * u.square() + tilt * u
    far = torch.where(
        kind < 0.45, torch.minimum(mask, straps), torch.where(kind < 0.75, scarf, cap)
    )
    far = far + 0.03 * _clouds(scene, 8)[:, 0]
    share = (0.5 - far * _wide(eyes / (0.8 + scene.share()))).clamp(0, 1)[:, None]
    folds = (v * _wide(5 + 20 * scene.share()) + 2 * _clouds(scene, 4)[:, 0]).sin()
    shade = 1 + _wide(0.2 * scene.share()) * folds + 0.2 * _clouds(scene, 5)[:, 0] - 0.12 * u.abs()
    mild = torch.tensor([0.75, 0.88, 0.95], device=u.device) * (0.8 + 0.25 * scene.share(1))
    plain = torch.where(scene.some(0.35)[:, None], mild, scene.share(3))[:, :, None, None]
    stuff = torch.where(scene.some(0.6).view(-1, 1, 1, 1), plain, _stuff(scene))
    return Layer((stuff * shade[:, None]).clamp(0, 1), share, _ones(scene))


def dark_glasses(scene: Scene) -> Layer:
    """Lenses of any density and colour, rims, a bridge and temples."""
    left, right = scene.points[:, 0], scene.points[:, 1]
    across = right - left
    wide = across.norm(dim=1).clamp(min=4)
    turn = torch.atan2(across[:, 1], across[:, 0])
    half = (torch.tensor([0.40, 0.30], device=wide.device) + 0.09 * scene.even(2)) * wide[:, None]
    power = _wide(2 + 4 * scene.share())
    sink = 0.08 * scene.share()
    cosine, sine = _wide(turn.cos()), _wide(turn.sin())
    far = None
    for centre in (left, right):
        offset = scene.field - centre[:, None, None]
        x = (offset[..., 0] * cosine + offset[..., 1] * sine) / _wide(half[:, 0])
        y = (offset[..., 1] * cosine - offset[..., 0] * sine - _wide(sink * wide)) / _wide(
            half[:, 1]
        )
        lens = (x.abs().clamp(1e-4, 9).pow(power) + y.abs().clamp(1e-4, 9).pow(power)).pow(
            1 / power
        )
        far = lens if far is None else torch.minimum(far, lens)
    assert far is not None
    offset = scene.field - ((left + right) / 2)[:, None, None]
    x = (offset[..., 0] * cosine + offset[..., 1] * sine) / _wide(wide)
    y = (offset[..., 1] * cosine - offset[..., 0] * sine) / _wide(wide)
    bar = torch.maximum((y + _wide(0.06 * scene.share())).abs() - 0.03, x.abs() - 1.1)
    sharp = _wide(half.amin(1))
    lens_share = ((1 - far) * sharp + 0.5).clamp(0, 1)
    bar_share = (0.5 - bar * _wide(wide)).clamp(0, 1)
    share = torch.maximum(lens_share, bar_share)[:, None]
    tint = scene.share(3) * torch.where(scene.some(0.7), 0.25, 0.9)[:, None]
    fade = 1 + _wide(0.6 * scene.share()) * y
    colour = tint[:, :, None, None] * fade[:, None].clamp(min=0)
    mirror = _wide((scene.share() * scene.some(0.4)) * 0.6)[:, None]
    colour = colour.lerp(scene.other.flip(2), mirror)
    rim = ((far - _wide(0.97 - 0.12 * scene.share())) * sharp + 0.5).clamp(0, 1)
    frame = (scene.share(3) * torch.where(scene.some(0.6), 0.2, 1.0)[:, None])[:, :, None, None]
    colour = torch.where((rim > 0.5)[:, None] | (bar_share > lens_share)[:, None], frame, colour)
    density = (0.35 + 0.65 * scene.share()).view(-1, 1, 1, 1)
    return Layer(colour.clamp(0, 1), share, density)


def _clouds(scene: Scene, cells: int) -> Tensor:
    """Smooth noise (B, 1, S, S), about within [-1, 1], with so many cells a side."""
    side = scene.images.shape[3]
    coarse = scene.normal(1, cells, cells) * 0.5
    return F.interpolate(coarse, (side, side), mode="bicubic" if cells < 20 else "bilinear")


def _stuff(scene: Scene) -> Tensor:
    """What things are made of (B, 3, S, S): one colour, two, stripes, noise, another picture."""
    one, two = (scene.share(3)[:, :, None, None] for _ in range(2))
    # A third are near to the skin's colour.
    skin = (scene.skin * (1 + 0.15 * scene.normal(1)) + 0.05 * scene.normal(3)).clamp(0, 1)
    one = torch.where(scene.some(0.3).view(-1, 1, 1, 1), skin[:, :, None, None], one)
    turn = math.pi * scene.share()
    along = scene.field[..., 0] * _wide(turn.cos()) + scene.field[..., 1] * _wide(turn.sin())
    side = scene.images.shape[3]
    slope = (along / side)[:, None]
    stripes = (along * _wide(0.15 + 1.2 * scene.share().square())).sin()[:, None]
    crossed = stripes * (scene.field.sum(-1) * _wide(0.1 + 0.5 * scene.share())).sin()[:, None]
    clouds, grain = _clouds(scene, 7), _clouds(scene, 50)
    mixes = torch.cat(
        [0 * slope, slope, stripes + 0.5, crossed + 0.5, clouds + 0.5, grain + 0.5], 1
    )
    row = torch.randint(mixes.shape[1], (len(mixes),)).to(mixes.device)
    mix = mixes[torch.arange(len(mixes), device=mixes.device), row][:, None]
    made = one.lerp(two, mix.clamp(0, 1))
    other = scene.other.roll((side // 3, side // 4), (2, 3))
    return torch.where(scene.some(0.25).view(-1, 1, 1, 1), other, made)


KINDS: dict[str, Callable[[Scene], Layer]] = {
    "thing": thing,
    "held": held,
    "hair": hair,
    "dark_glasses": dark_glasses,
    "cloth": cloth,
    "hand": hand,
}
"""In the order in which they are put on: a hand lies over all else."""


def put_on(images: Tensor, bare: Tensor, layer: Layer, shadow: Tensor, way: Tensor) -> None:
    """Draw a layer over images (B, 3, S, S), in place, and take it off ``bare`` (B, 1, S, S).

    Args:
        images: in [0, 1].
        bare: in [0, 1].
        layer: of as many.
        shadow: (B,) in [0, 1], how dark a shadow it casts.
        way: (B, 2), where to, in pixels.
    """
    side = images.shape[3]
    # Soft: shrunk, blurred, and sampled again a little further on.
    small = F.avg_pool2d(F.avg_pool2d(layer.share, 4), 3, 1, 1)
    shift = torch.zeros(len(images), 2, 3, device=images.device)
    shift[:, 0, 0] = shift[:, 1, 1] = 1
    shift[:, :, 2] = -2 * way / side
    grid = F.affine_grid(shift, [len(images), 1, side, side], align_corners=False)
    cast = F.grid_sample(small, grid, align_corners=False)
    shaded = images * (1 - shadow.view(-1, 1, 1, 1) * cast)
    images.copy_(shaded.lerp(layer.colour, layer.share * layer.density))
    bare.mul_(1 - layer.share)
