"""Prints how long the training of 2012 takes at measured rates, for `docs/performance.md`: `python -m docs.six_days`.

A test compares the two.
"""

IMAGES = 91 * 1_281_167  # net 145: 91 epochs (A/layers/layer-params-145.cfg)
PARAMETERS = 60_965_224
RECORD, CROP = 256 * 256 * 3, 224 * 224 * 3  # bytes of an image: as a raw record, as a crop

# Images a second on one H200 with 16 cores, JAX 0.11.2, 2026-11-27, one run: by what bounds them.
MEASURED = {
    "the update alone, bfloat16, batches of 1024": 69_310,
    "raw records, read by 4 worker processes": 19_354,
    "JPEG, decoded by 16 worker processes": 16_080,
}

# Minutes, chips and source of public records for AlexNet on ImageNet.
RECORDS = (
    (24, "hundreds of chips", "You et al. 2017, arXiv 1709.05011"),
    (4, "1,024 Tesla P40", "Jia et al. 2018, arXiv 1807.11205"),
    (1.5, "512 Tesla V100", "Sun et al. 2019, arXiv 1902.06855"),
)

GPUS = HOSTS = 8
NVLINK, NETWORK = 450e9, 50e9  # bytes a second each way: of an H200 among 8, of a host with 400 Gb/s


def hours(rate: float) -> str:
    """The time of the whole training at so many images a second."""
    return f"{IMAGES / rate / 3600:.1f} h"


def section() -> str:
    """The section as Markdown."""
    rate = MEASURED["the update alone, bfloat16, batches of 1024"]
    update = 1024 / rate
    gradients = 4 * PARAMETERS
    ring = 2 * (GPUS - 1) / GPUS * gradients
    between = 2 * (HOSTS - 1) / HOSTS * gradients
    lines = [
        "## What the paper took six days for",
        "",
        f"The training of 2012 saw {IMAGES / 1e6:.0f} million images and took five to six days on two GTX 580 (paper",
        "section 5). At the rates that were measured once on an H200 with 16 cores, each alone:",
        "",
        "| bound by | images/s | time |",
        "| --- | --- | --- |",
        *(f"| {name} | {value:,} | {hours(value)} |" for name, value in MEASURED.items()),
        "",
        "A run takes as long as its slowest part. Public records for AlexNet, with the rate that such a time asks for,",
        f"and the number of GPUs that this takes at {rate:,} images/s, if their sums cost nothing:",
        "",
        "| minutes | on | images/s | such GPUs | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    for minutes, chips, source in RECORDS:
        needed = IMAGES / (60 * minutes)
        lines.append(f"| {minutes:g} | {chips} | {needed:,.0f} | {-(-needed // rate):.0f} | {source} |")
    return "\n".join(
        [
            *lines,
            "",
            "The records trained for some 100 epochs, with large batches and other recipes.",
            "",
            f"Past one GPU, on paper: an update of 1,024 images takes {update * 1e3:.0f} ms. The sum of gradients over"
            f" {GPUS} GPUs moves",
            f"{ring / 1e6:.0f} MB from each, {ring / NVLINK * 1e3:.1f} ms at {NVLINK / 1e9:.0f} GB/s; over {HOSTS}"
            f" hosts {between / 1e6:.0f} MB, {between / NETWORK * 1e3:.1f} ms at {NETWORK / 1e9:.0f} GB/s.",
            "Gradients are summed in float32, the type of the parameters. In bfloat16 the sums would take half of",
            "that. With bfloat16 activations a GPU rounds its gradients of kernels to bfloat16 already, and sums",
            f"would be rounded once more, which no run has tried. A host with {GPUS} GPUs",
            f"must feed {GPUS * rate:,} images/s: {GPUS * rate * CROP / 1e9:.0f} GB/s of crops, and as many cores as"
            f" decode {GPUS * rate:,} JPEG a",
            f"second. The training images of ImageNet, decoded, are {1_281_167 * RECORD / 1e9:,.0f} GB: more than one"
            f" GPU holds, and {1_281_167 * RECORD / (GPUS * 141e9):.0%} of the memory of {GPUS}",
            "if divided. `config.dataset.on_device` keeps all images on every GPU, since a batch may need any.",
            "",
        ]
    )


if __name__ == "__main__":
    print(section())
