"""Wrong command lines of the experiments: each is one line that names what is wrong, and status 2, before any work."""

import pytest

from experiments import toy_comparison
from experiments.tables import command as tables
from experiments.toy import command as toy
from experiments.vae import command as vae
from tests.experiments.refused import refusal_of

WHOLE = "expected a whole number from {} to 2,147,483,647, got '{}'"
VAE = [
    *[
        (f"--{name} {value}", f"argument --{name}: {WHOLE.format(1, value)}")
        for name in ("steps", "num-samples", "batch-size", "encoder-updates", "latent", "proposal-hidden", "seeds")
        for value in ("0", "-1", "1.5", "nan", "many", "99999999999999999999")
    ],
    *[
        (f"--{name} {value}", f"argument --{name}: {WHOLE.format(0, value)}")
        for name in ("warmup", "patience", "nll-images")
        for value in ("-1", "0.5", "inf", "2147483648")
    ],
    *[
        (f"--{name} {value}", f"argument --{name}: expected a finite number above 0, got '{value}'")
        for name in ("learning-rate", "clip")
        for value in ("0", "-1", "nan", "inf", "1e999", "fast")
    ],
    *[
        (f"--free-bits {value}", f"argument --free-bits: expected a finite number of at least 0, got '{value}'")
        for value in ("-0.1", "nan", "inf", "few")
    ],
    *[
        (f"--polyak {value}", f"argument --polyak: expected a finite number of at least 0 and below 1, got '{value}'")
        for value in ("1", "-0.1", "nan", "2")
    ],
    *[
        (f"--time-limit {value}", f"argument --time-limit: expected a finite number of at least 0, got '{value}'")
        for value in ("-1", "nan", "inf", "soon")
    ],
    *[
        (f"--hidden {value}", "argument --hidden: expected a whole number from 1")
        for value in ("0", "200,", "a", "5,-1")
    ],
    ("--steps 60 0", "argument --steps: expected a whole number from 1"),
    ("--nll-samples 1", "argument --nll-samples: expected a whole number from 2"),
    ("--nll-images 1", "nll_images: expected 0, for all, or at least 2 for a standard error, got 1"),
    ("--steps", "argument --steps: expected at least one argument"),
    ("--no-such-option", "unrecognized arguments: --no-such-option"),
    ("--dataset cifar", "dataset: expected one of digits, binarized_mnist"),
    ("--architecture transformer", "architecture: expected one of mlp, conv, got 'transformer'"),
    ("--architecture conv", 'architecture: "conv" takes images of 28x28'),
    ("--schedule linear", "schedule: expected one of constant, cosine, got 'linear'"),
    *[
        (f"--model {name}", "model: expected vae, iwae")
        for name in ("gan", "hiwae-", "hiwae-nan", "hiwae-inf", "hiwae--1")
    ],
    ("--gradient dreg", "gradient: expected one of"),
    ("--batch-size 1298", "batch_size: expected at most the 1297 training examples, got 1298"),
    ("--sweep cifar", "argument --sweep: invalid choice: 'cifar'"),
    ("--sweep mnist-mlp --num-samples 3", "nothing in this sweep has {'num_samples': [3]}"),
    ("--sweep mnist-mlp --dataset digits", "nothing in this sweep has {'dataset': ['digits']}"),
    ("--data-dir {tmp}/nowhere", "argument --data-dir: expected a folder, and {tmp}/nowhere does not exist"),
    ("--data-dir {tmp}/file", "argument --data-dir: expected a folder, and {tmp}/file is a file"),
    ("--output {tmp}/file", "argument --output: cannot write into the folder {tmp}/file: there is a file of that name"),
    ("--output {tmp}/file/below", "argument --output: cannot write into the folder {tmp}/file/below: Not a directory"),
    *[
        (f"--mesh {text}", "argument --mesh: expected")
        for text in ("data", "data=0", "data=x", "rows=2", "data=2,data=2")
    ],
    ("--mesh data=4096", "--mesh: data=4096 needs 4096 devices, and there are"),
    ("--distributed", "argument --distributed: needs --mesh"),
    ("--mesh data=1 --distributed localhost:7000,2", "--distributed: expected nothing, or HOST:PORT,COUNT,INDEX"),
    ("--mesh data=1 --distributed localhost:7000,2,2", "--distributed: expected an index from 0 to 1 of 2 processes"),
    ("--mesh data=1 --distributed localhost,2,0", "--distributed: expected nothing, or HOST:PORT,COUNT,INDEX"),
]
TOY = [
    *[
        (f"--{name} {value}", f"argument --{name}: {WHOLE.format(1, value)}")
        for name in ("num-samples", "steps", "seeds", "draws")
        for value in ("0", "-1", "1.5", "nan", "many")
    ],
    *[
        (f"--alpha {value}", "argument --alpha: expected a finite number of at least 0")
        for value in ("-1", "nan", "inf")
    ],
    *[(f"--learning-rate {value}", "expected a finite number above 0") for value in ("0", "-1", "nan", "inf", "x")],
    ("--gradient typo", "gradient: expected one of"),
    ("--z0 both", "argument --z0: invalid choice: 'both'"),
    ("--reverse head", "argument --reverse: invalid choice: 'head'"),
    ("--z0 markov --num-samples 1", "num_samples: expected at least 2 for a Markov chain, got 1"),
    ("--figure 5", "argument --figure: invalid choice: 5"),
    ("--figure 2 --seeds 0", "argument --seeds: expected a whole number from 1"),
    ("--figure 2 --steps 10", "--figure: the figures have settings of their own; leave out --steps"),
    ("--output {tmp}/file", "argument --output: cannot write into the folder {tmp}/file"),
    ("--figure 2 --output {tmp}", "{tmp}/figures.json: no readable JSON"),
]
TABLES = [
    ("--results {tmp}/nowhere", "the folder of results does not exist: {tmp}/nowhere"),
    ("--results {tmp}/file", "the folder of results is a file: {tmp}/file"),
    ("--results {tmp}/empty", "no results of experiments.vae in {tmp}/empty; copy some there with --collect DIR"),
    ("--results {tmp}", "{tmp}/figures.json: no readable JSON"),
    ("--collect {tmp}/nowhere", "argument --collect: expected a folder, and {tmp}/nowhere does not exist"),
    ("--collect {tmp}/empty --results {tmp}/file", "argument --results: cannot write into the folder {tmp}/file"),
    ("--collect {tmp}/empty --results {tmp} {tmp}", "--collect: expected one folder of --results to copy to, got 2"),
    ("--output {tmp}", "argument --output: expected the name of a file, and {tmp} is a folder"),
    ("--output {tmp}/file/tables.md", "argument --output: cannot write into the folder {tmp}/file"),
    ("--output {tmp}/tables.png", "argument --output: expected the document, as tables.md"),
]
COMPARISON = [
    ("--output {tmp}/nowhere", "argument --output: expected a folder, and {tmp}/nowhere does not exist"),
    ("--output {tmp}/empty", "{tmp}/empty/figures.json: no readable JSON"),
    ("--output {tmp}", "{tmp}/figures.json: no readable JSON"),
    ("--output {tmp}/other", "{tmp}/other/figures.json: has no fits of figure 3"),
    ("runs/toy", "unrecognized arguments: runs/toy"),
]
COMMANDS = {vae: VAE, toy: TOY, tables: TABLES, toy_comparison: COMPARISON}


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [(module, *wrong) for module, lines in COMMANDS.items() for wrong in lines],
    ids=lambda value: value if isinstance(value, str) else value.NAME,
)
def test_a_wrong_command_line_is_one_line_and_status_2(module, line, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the default folders would be made
    (tmp_path / "file").touch()
    (tmp_path / "figures.json").write_text("{")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "figures.json").write_text('{"figure 3": {"results": [{"gap": 1}, null]}}')
    err = refusal_of(module, [word.format(tmp=tmp_path) for word in line.split()], capsys)
    assert message.replace("{tmp}", str(tmp_path)) in err
    assert not list(tmp_path.rglob("checkpoints"))
