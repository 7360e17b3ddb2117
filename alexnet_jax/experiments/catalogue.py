"""All experiments, by name."""

from alexnet_jax.experiments import ablations, elpv, figure1, initialisation, large_batch, response_norm

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        elpv.ELPV,
        figure1.FIGURE1,
        response_norm.RESPONSE_NORM,
        ablations.CIFAR10,
        ablations.ELPV,
        initialisation.INITIALISATION,
        large_batch.LARGE_BATCH,
    )
}
