"""Draws pictures of shapes in folders by class, for docs/your-own-images.md. Needs Pillow alone.

    python docs/draw_pictures.py shapes                       # 100 pictures of each class in shapes/CLASS
    python docs/draw_pictures.py new --count=4 --seed=1       # other pictures of the same classes
    python docs/draw_pictures.py few --count=20 --classes bar square star

Sizes, colours, places and angles differ from picture to picture, and every picture has noise: only the shape says the
class. The same seed draws the same pictures.
"""

import argparse
import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter


def regular(corners: int, *inner: float) -> list[tuple[float, float]]:
    """The outline of a regular polygon of radius 1; `inner` are radii of further corners between two of its corners."""
    radii = (1.0, *inner) * corners
    angles = (2 * math.pi * i / len(radii) for i in range(len(radii)))
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


# Corners of the outlines, within a distance of about 1 from (0, 0). Add your own.
CLASSES = {
    "bar": [(-1.0, -0.25), (1.0, -0.25), (1.0, 0.25), (-1.0, 0.25)],
    "circle": regular(60),
    "cross": [
        (x, y)
        for a, b in ((1, 0), (0, 1), (-1, 0), (0, -1))
        for x, y in ((a + 0.3 * b, b - 0.3 * a), (a - 0.3 * b, b + 0.3 * a), (0.3 * (a - b), 0.3 * (a + b)))
    ],
    "square": regular(4),
    "star": regular(5, 0.4),
    "triangle": regular(3),
}
DRAWN = ("circle", "cross", "triangle")  # where no class is named


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
        for x, y in CLASSES[class_name]
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
    parser.add_argument(
        "--classes", nargs="+", choices=CLASSES, default=DRAWN, help=f"classes to draw; default: {' '.join(DRAWN)}"
    )
    chosen = parser.parse_args()
    if chosen.count < 1:
        parser.error(f"--count={chosen.count} is no number of pictures; use at least 1")
    generator = random.Random(chosen.seed)
    try:
        for class_name in chosen.classes:
            (chosen.folder / class_name).mkdir(parents=True, exist_ok=True)
            for number in range(1, chosen.count + 1):
                draw(class_name, generator).save(chosen.folder / class_name / f"{number:03}.png")
    except OSError as error:
        sys.exit(f"error: {error}")
    print(f"drew {chosen.count:,} pictures of each of {', '.join(chosen.classes)} in {chosen.folder}")


if __name__ == "__main__":
    main()
