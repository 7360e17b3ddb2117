"""All experiments, by name."""

from alexnet_jax.experiments import ablations, elpv, figure1, initialisation, large_batch, response_norm, retrieval

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        elpv.ELPV,
        figure1.FIGURE1,
        response_norm.RESPONSE_NORM,
        response_norm.LONG,
        ablations.CIFAR10,
        ablations.ELPV,
        initialisation.INITIALISATION,
        retrieval.RETRIEVAL,
        large_batch.LARGE_BATCH,
    )
}
