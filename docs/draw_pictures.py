"""Draws pictures of shapes in folders by class, for docs/your-own-images.md. Needs Pillow alone.

    python docs/draw_pictures.py shapes                       # 100 pictures of each class in shapes/CLASS
    python docs/draw_pictures.py new --count=4 --seed=1       # other pictures of the same classes

Sizes, colours, places and angles differ from picture to picture, and every picture has noise: only the shape says the
class. The same seed draws the same pictures.
"""

import argparse
import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter


def circle() -> list[tuple[float, float]]:
    """The outline of a disc of radius 1, as all outlines here."""
    return [(math.cos(2 * math.pi * i / 60), math.sin(2 * math.pi * i / 60)) for i in range(60)]


def cross() -> list[tuple[float, float]]:
    """The outline of a plus sign."""
    arm = 0.3
    corner = [(1, -arm), (1, arm), (arm, arm)]
    return [
        (x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn))
        for turn in (0, math.pi / 2, math.pi, 3 * math.pi / 2)
        for x, y in corner
    ]


def triangle() -> list[tuple[float, float]]:
    """The outline of a triangle with equal sides."""
    return [(math.cos(2 * math.pi * i / 3), math.sin(2 * math.pi * i / 3)) for i in range(3)]


CLASSES = {"circle": circle, "cross": cross, "triangle": triangle}  # add your own: a name, and an outline


def draw(class_name: str, generator: random.Random) -> Image.Image:
    """A picture of the class: a shape of one colour on another, softened, with noise."""
    width, height = generator.randint(120, 200), generator.randint(120, 200)
    back = [generator.randint(0, 255) for _ in range(3)]
    front = [(channel + generator.randint(90, 165)) % 256 for channel in back]
    image = Image.new("RGB", (width, height), tuple(back))
    radius = min(width, height) * generator.uniform(0.22, 0.36)
    centre = (width * generator.uniform(0.42, 0.58), height * generator.uniform(0.42, 0.58))
    angle = generator.uniform(0, 2 * math.pi)
    corners = [
        (
            centre[0] + radius * (x * math.cos(angle) - y * math.sin(angle)),
            centre[1] + radius * (x * math.sin(angle) + y * math.cos(angle)),
        )
        for x, y in CLASSES[class_name]()
    ]
    ImageDraw.Draw(image).polygon(corners, fill=tuple(front))
    image = image.filter(ImageFilter.GaussianBlur(generator.uniform(0.5, 1.5)))
    noise = Image.frombytes("RGB", image.size, generator.randbytes(3 * width * height))
    return Image.blend(image, noise, generator.uniform(0.1, 0.35))


def main() -> None:
    """Draws what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder to make; each class has a folder in it")
    parser.add_argument("--count", type=int, default=100, help="pictures of each class; default: 100")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other pictures; default: 0")
    chosen = parser.parse_args()
    if chosen.count < 1:
        parser.error(f"--count={chosen.count} is no number of pictures; use at least 1")
    generator = random.Random(chosen.seed)
    try:
        for class_name in CLASSES:
            (chosen.folder / class_name).mkdir(parents=True, exist_ok=True)
            for number in range(1, chosen.count + 1):
                draw(class_name, generator).save(chosen.folder / class_name / f"{number:03}.png")
    except OSError as error:
        sys.exit(f"error: {error}")
    print(f"drew {chosen.count:,} pictures of each of {', '.join(CLASSES)} in {chosen.folder}")


if __name__ == "__main__":
    main()
