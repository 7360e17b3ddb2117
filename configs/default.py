"""placeholder"""

from ml_collections import ConfigDict, config_dict


def get_config():
    config = ConfigDict()
    config.name = "elpv"
    config.seed = 0
    config.dataset = ConfigDict(
        dict(name="elpv/128", train_split="train", eval_split="test", crop_size=112, classes=2, train_images=1970)
    )
    config.jitter = ConfigDict(dict(rotation=0.0, scale=0.0))
    config.network = ConfigDict(dict(recipe="original", width=0.5, he_init=True, bfloat16=False))
    config.photometry = ConfigDict(dict(noise=((0, 0.1),), standardize=True))
    config.batch_size = 32
    config.num_epochs = 30.0
    config.schedule = "run"
    config.plateau = ConfigDict(dict(patience=3, drops=3))
    config.warmup_epochs = 0.0
    config.rates = ConfigDict({"all": dict(kernel=((0, 0.01), (0.6, 0.001)), bias=((0, 0.02), (0.6, 0.002)))})
    config.momentum = 0.9
    config.nesterov = False
    config.weight_decay = 5e-4
    config.weight_decays = ConfigDict()
    config.clip_norm = config_dict.placeholder(float)
    config.lars_trust = config_dict.placeholder(float)
    config.label_smoothing = 0.0
    config.init_from = config_dict.placeholder(str)
    config.fresh = ()
    config.evaluate_every = 1.0
    config.save_every = 1.0
    config.mesh = ConfigDict(dict(data=config_dict.placeholder(int), tower=config_dict.placeholder(int)))
    config.lock()
    return config
