"""AlexNet on ELPV: is a solar cell functional or defective? 2,624 photographs, minutes on a laptop without a GPU.

Reproduces no result of the paper: it shows the network of 2012 learn. Both towers, response norm, overlapping pooling
and the update are those of 2012. Some fields differ from net 145, because time is short and the data set is small. The
comment beside such a field has the reason and the measurement. Measurements were made on quarters of the training split
(492 photographs; the "tuning quarter" is `train[:25%]`), with one seed: differences of two points of error are chance.
Where a comment does not say "without dropout", the measurement was made with dropout.

Expected: README.md has the error with its spread over five seeds, the time, and the published figures. A program that
always answers 'functional' has an error of 31 %.

Command: `python -m alexnet_jax.main --config=configs/default.py`
"""

from ml_collections import ConfigDict, FieldReference, config_dict


def get_config() -> ConfigDict:
    """The config with every field. The other configs change some of these fields."""
    config = ConfigDict()
    # Name of the workdir, below runs/. None: that of the data set, such as runs/elpv.
    config.name = config_dict.placeholder(str)
    config.seed = 0  # seed of initial values, image order, crops, colour noise and dropout masks

    config.dataset = ConfigDict()
    # Data set: NAME/SIZE, or NAME/SIZE_raw with `prepare --encoding=raw`. SIZE: side of the stored images, pixels.
    config.dataset.name = "elpv/160"
    # Images of the updates, in TFDS's notation: 'train[25%:]' leaves out the first quarter. None: 'train'.
    config.dataset.train_split = config_dict.placeholder(str)
    # Images of the evaluations during training and at its end; no field was chosen on them. None: the validation split,
    # or else the test split.
    config.dataset.eval_split = config_dict.placeholder(str)
    # Side of the crops, pixels. 2012: 224 of 256. None: that share of the stored images. On the tuning quarter, in
    # about the same time, the loss of the centre crop was 0.461 with 112 of 128, 0.459 with 128 of 144, and 0.451 with
    # 144 of 160. 176 of 192 takes 1.6 times as long.
    config.dataset.crop_size = FieldReference(144)  # a reference may also be None
    # Number of consecutive images that share a crop and a flip. 2012: 32 (A/convdata_jpeg.py:238-246).
    config.dataset.crop_group = 1
    # Numbers of classes and of training images, for a dry run without the data set. Where the data set is there, a
    # different number of classes is an error, and the number of images is ignored. None: those of the data set.
    config.dataset.classes = config_dict.placeholder(int)
    config.dataset.train_images = config_dict.placeholder(int)

    # Whether the devices keep both splits, decoded, and cut the batches from them. Crops and flips have the same pixels
    # as from disk; those of rotated and scaled crops differ by one level of 255 at most. None: on GPUs and TPUs, where
    # the images take less than a quarter of a device's memory.
    config.dataset.on_device = config_dict.placeholder(bool)
    # Number of processes that read and crop the images, where the devices do not keep them; 0: threads. The batches are
    # the same. Threads share the interpreter's lock and give a few cores' worth of images, where a GPU takes 69,000 a
    # second. None: on GPUs and TPUs one process a core, at most 64, or threads on one core; on CPUs threads. Of several
    # runs or processes on one machine, each needs its share of the cores here.
    config.dataset.workers = config_dict.placeholder(int)

    # Random rotation and scaling, in addition to the paper's crop and flip. 2012: 0. With crops of 112 and ten views,
    # the error was 20.5 % after 30 epochs without them, 18.9 % after 40 and 18.7 % after 60 with these values. Doubling
    # both values gave no smaller error.
    config.jitter = ConfigDict()
    config.jitter.rotation = 5.0  # maximum angle in either direction, degrees
    config.jitter.scale = 0.15  # enlarged by a factor from 1 / (1 + scale) to 1 + scale
    # Symmetries of the square of which each crop gets one at random. 1: none; 2: mirror images, as in 2012; 4: also
    # upside down, since a cell has no top; 8: also with rows and columns exchanged. With 8 the network learns more
    # slowly: without dropout, the loss after 45 epochs was 0.432 in place of 0.400 with 2.
    config.jitter.symmetries = 4

    config.network = ConfigDict()
    # `original` is net 145; see network/recipes.py for the others. With its dropout the training error stayed at 19 %:
    # the network underfits.
    config.network.recipe = "no_dropout"
    # Share of the recipe's maps and units. With crops of 112, a quarter gave a loss of 0.461 after 45 epochs. A half
    # gave 0.456 after 30 epochs, in twice the time.
    config.network.width = 0.25
    # Initial values of He et al. 2015. The recipe's initial values need 1.2 million images: with them, the error of
    # `original` at full width still varied between 25 % and 31 % after 488 updates of 32 images.
    config.network.he_init = True
    # Activations in bfloat16; parameters stay float32. On a CPU, bfloat16 puts both towers on one device.
    config.network.bfloat16 = False

    config.photometry = ConfigDict()
    config.photometry.noise = ((0, 0.1),)  # colour noise; a table like `rates`. 2012: 0.1, then 0
    # Pixels divided by their standard deviation. 2012 used 0 to 255, which diverges with He's initial values.
    config.photometry.standardize = True
    # Mean and deviation are each crop's own, in place of the mean image and of one deviation for all. On the tuning
    # quarter, without dropout, the loss of ten views was 0.400 with it and 0.435 without.
    config.photometry.each_image = True

    # Images an update. 2012: 128. After 45 epochs with batches of 32 and a rate of 0.014, the loss of ten views was
    # 0.430. After 36 epochs with batches of 16 and a rate of 0.01, in the same time, it was 0.434.
    config.batch_size = 32
    # 2012: 91. On two quarters, without dropout, the errors were 17.3 and 20.5 % after 45 epochs with 2 symmetries, and
    # 15.9 and 19.5 % after 90 with 4. After 130 with 4 the second was 18.7 %. 120 take 8.5 minutes on two cores.
    config.num_epochs = 120.0

    # The unit of the positions in tables. 2012: 'epochs'.
    #   'epochs'
    #   'steps': updates
    #   'run': shares of the run, from 0 to 1
    #   'cosine': as 'run', and every rate falls to 0 along half a cosine
    #   'plateau': epochs, and every rate is divided by 10 when the validation error stops falling
    config.schedule = "cosine"
    config.plateau = ConfigDict()
    config.plateau.patience = 3  # evaluations without a smaller error before a division
    config.plateau.drops = 3  # maximum number of divisions (paper section 5)
    config.warmup_epochs = 0.0  # epochs over which the rates rise from 0
    # Learning rates by layer, as tables ((position, value), ...). `all` holds for every layer without a table. 2012:
    # 0.01 and 0.02 at first (A/layers/layer-params-120-4gpu.cfg). With 16 images an update 0.01 was better than
    # 0.005. For 32 images the rate grows by the root of two (Krizhevsky 2014, "One weird trick for parallelizing
    # convolutional neural networks").
    config.rates = ConfigDict()
    config.rates.all = ConfigDict()
    config.rates.all.kernel = ((0, 0.014),)
    config.rates.all.bias = ((0, 0.028),)

    config.momentum = 0.9  # paper section 5
    config.nesterov = False  # Sutskever et al. 2013
    config.weight_decay = 0.0005  # paper section 5; for kernels, not for biases
    config.weight_decays = ConfigDict()  # weight decay of single layers, by name
    config.clip_norm = config_dict.placeholder(float)  # maximum norm of the gradient; None: no limit
    config.lars_trust = config_dict.placeholder(float)  # trust coefficient of LARS (You et al. 2017); None: no LARS
    config.label_smoothing = 0.0  # share of the target spread over all classes

    config.init_from = config_dict.placeholder(str)  # workdir of the run whose parameters this run starts from
    config.fresh = ()  # layers, by name, that start from initial values nevertheless

    config.evaluate_every = 5.0  # epochs between evaluations; the run also ends with one
    config.save_every = 5.0  # epochs between checkpoints; the run also ends with one
    # When a checkpoint cannot be written, as on a full disk: 'continue' prints a warning and saves again when the next
    # save is due; 'stop' ends the run. The last complete checkpoint stays in both cases.
    config.on_failed_save = "continue"

    # Devices along each axis of the mesh; None: the fastest mesh for training on this machine. On a CPU two towers use
    # two devices, on other platforms one.
    config.mesh = ConfigDict()
    config.mesh.data = config_dict.placeholder(int)
    config.mesh.tower = config_dict.placeholder(int)
    config.lock()
    return config


def of_2012() -> ConfigDict:
    """The config, unlocked, with values of 2012 where a field above was chosen for ELPV. Other configs start here."""
    config = get_config()
    config.unlock()
    config.jitter.update(rotation=0.0, scale=0.0, symmetries=2)
    config.network.update(recipe="original", width=1.0, he_init=False)
    config.photometry.update(standardize=False, each_image=False)
    config.batch_size = 128  # A/convnet.py:177
    return config
