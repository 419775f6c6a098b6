"""Fit the unnormalised 2-D density of Huang et al. (2019), figure 2: a table of bounds, or the paper's figures.

    python -m experiments.toy                                  # alpha 0 and 1, shared and separate z_0, K = 3
    python -m experiments.toy --alpha 1 --z0 shared --num-samples 10 --gradient reparameterized doubly_reparameterized
    python -m experiments.toy --alpha 1 --z0 shared mixture-12 # K of 12 Gaussians beside K members with a z_0
    python -m experiments.toy --figure 2 3 4 7                 # the figures; --seeds is of 3 and 4, by default 25
    python -m experiments.toy --figure 3 4 --networks paper --output runs/toy_paper      # with those of appendix D

There is no data and no generative model to learn. The target takes the place of the joint density, so the bound lies
below log Z, and the gap measures the proposal alone. "shared" means one z_0 for all members, "separate" a z_0 for each
sample, and "markov" a chain of samples without z_0. The members are distinct under all three. "mixture-12" draws K of
12 Gaussians, without z_0, and weighs each sample with their mixture; its alpha is 1.

Columns of the table, each a mean over seeds, evaluated with --draws fresh draws of K samples a seed:
  bound     mean over draws of `log w`, w being `sum_j w_j`, mixing weights included.
  gap       log Z - bound, with the standard deviation of the gap between seeds after +-.
  Var log w variance over draws of `log w`.
  Var log w_j  variance over draws of `log w_j` (its mixing weight included) for each member j, mean over members.
  corr      correlation over draws of w_i and w_j, mean over pairs.
  ESS       mean over draws of `(sum_j w_j)^2 / sum_j w_j^2`, between 1 and K.
  seconds   training of all seeds together, compilation included.

Every fit is kept under --output and not repeated. A fit that is damaged or belongs to other settings is made anew.
Figure 4 is drawn from the fits of figure 3. Exit status: 0, done; 1, a fit diverged; 2, refused before any work, in one
line; 75, another process works in --output; 130, Ctrl-C.
"""

import argparse
import pathlib

from experiments.shared import command_line, run_folder, stored
from experiments.shared.provenance import provenance
from experiments.toy import figures
from experiments.toy.fits_table import HEADER, row
from experiments.toy.problem import CHOICES, Settings, log_normaliser, make_problem
from experiments.toy.training import fit

NAME = "experiments.toy"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line.Parser(NAME, __doc__)
    count = command_line.whole_number(1)
    default = Settings()
    parser.add_argument("--figure", nargs="+", type=int, choices=sorted(figures.FIGURES), default=[])
    parser.add_argument("--z0", nargs="+", choices=CHOICES["z0"], default=["shared", "separate"])
    parser.add_argument(
        "--alpha", nargs="+", type=command_line.number(least=0.0), default=[0.0, 1.0], help="default: 0 1"
    )
    parser.add_argument("--reverse", choices=CHOICES["reverse"], default=default.reverse, help="how r knows the member")
    parser.add_argument(
        "--networks",
        choices=CHOICES["networks"],
        default=default.networks,
        help="paper: skip connections and conditional weight norm, as in the paper's appendix D; default: %(default)s",
    )
    parser.add_argument("--gradient", nargs="+", default=[default.gradient], help="default: %(default)s")
    parser.add_argument("--num-samples", type=count, default=default.num_samples, help="K; default: %(default)s")
    parser.add_argument("--steps", nargs="+", type=count, default=[default.steps], help="default: %(default)s")
    rate = command_line.number(above=0.0)
    parser.add_argument("--learning-rate", type=rate, default=default.learning_rate, help="default: %(default)s")
    parser.add_argument("--decay", action="store_true", help="the learning rate falls to zero along half a cosine")
    parser.add_argument("--seeds", type=count, help=f"default: {default.seeds}; of figures 3 and 4, {figures.SEEDS}")
    parser.add_argument("--draws", type=count, default=default.draws, help="default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/toy"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.figure:
        free = ("figure", "seeds", "networks", "output")
        extra = [
            name for name, value in vars(options).items() if name not in free and value != parser.get_default(name)
        ]
        if extra:
            given = ", ".join("--" + name.replace("_", "-") for name in extra)
            parser.error(f"--figure: the figures have settings of their own; leave out {given}")
    return options


def grid(options: argparse.Namespace) -> list[Settings]:
    """The settings of every combination that is asked for."""
    default = Settings()
    return [
        Settings(
            z0=z0,
            alpha=alpha,
            reverse=options.reverse if alpha == 0.0 else default.reverse,
            gradient=gradient,
            num_samples=options.num_samples,
            steps=steps,
            seeds=default.seeds if options.seeds is None else options.seeds,
            draws=options.draws,
            learning_rate=options.learning_rate,
            decay=options.decay,
            networks=options.networks,
        )
        for steps in options.steps
        for alpha in options.alpha
        for z0 in options.z0
        for gradient in options.gradient
    ]


def main(arguments: list[str] | None = None) -> int:
    """Draw the figures, or print and write the table of every combination that is asked for."""
    options = parse(arguments)
    with command_line.refusals(NAME):
        command_line.make_folder("--output", options.output)
        rows = [] if options.figure else grid(options)
        for settings in rows:
            # A mistake in the last row is an error before the first one trains.
            make_problem(settings).make_bound(gradient=settings.gradient)
        numbers = options.output / "figures.json"
        if options.figure and numbers.exists():
            stored.read_json(numbers)  # an error before any work if the file is damaged: figures are added to it
    try:
        return run_folder.work_in(options.output, lambda: _write(options, rows))
    except FloatingPointError as error:
        print(f"\n{error}")
        return command_line.FAILED


def _write(options: argparse.Namespace, rows: list[Settings]) -> None:
    fits = options.output / "fits"
    if options.figure:
        seeds = figures.SEEDS if options.seeds is None else options.seeds
        figures.write(options.figure, options.output, seeds=seeds, networks=options.networks, fits=fits)
        return
    log_z = log_normaliser()
    results = [fit(settings, fits, log_z=log_z).result for settings in rows]
    text = "\n".join([HEADER, *map(row, results)])
    print(f"\n{text}\n")
    (options.output / "toy.md").write_text(text + "\n")
    stored.write_json(options.output / "toy.json", {"results": results, "provenance": provenance()})
    print(f"table and JSON are in {options.output}/")
