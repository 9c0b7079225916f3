# The chain: one rule per notebook in nbs/paper. `medcrypt reproduce` writes config.json and calls Snakemake with it;
# the working folder is the run's output folder. The same workflow goes to Slurm or Kubernetes through Snakemake's executor plugins.
import json
import shlex
import sys
from pathlib import Path

from medcrypt.cli.chain import sources
from medcrypt.core import profile
from medcrypt.learning.rungs import jobs

ROOT = Path(workflow.basedir)
CLAIMS = str(ROOT / "medcrypt" / "evaluation" / "claims.toml")  # what the ledger judges, and by which tolerances
NAMES = sorted(config["datasets"], key=lambda n: (config["datasets"][n]["modality"] != "CXR", n))  # radiographs first, as in the paper
COMMON = {"out": ".", "profile": config["profile"], "seed": config["seed"]}
ALL = {**COMMON, "dataset_names": ",".join(NAMES)}
PROFILE = profile(config["profile"])
MODELS = [job.slug for job in jobs(PROFILE.views, each_key=PROFILE.each_key)]
FINDINGS = {n: ["findings"] for n in NAMES if config["datasets"][n].get("findings")}  # one model more, for several labels


wildcard_constraints:
    dataset="|".join(NAMES),
    model="|".join([*MODELS, "findings"]),
    repetition=r"\d+",


def needs(notebook):
    """The notebook and every package module that it imports; a function, so that Snakemake reads no wildcard into a path with braces."""
    files = [str(p) for p in sources(ROOT / "nbs" / "paper" / f"{notebook}.ipynb", ROOT)]
    return lambda wildcards: files


def figure(*names):
    return [f"figures/{n}.{kind}" for n in names for kind in ("png", "svg", "csv")]


def table(*names):
    return [f"figures/{n}.{kind}" for n in names for kind in ("csv", "md")]


def quoted(path):
    """For the shell, with braces that Snakemake leaves alone."""
    return shlex.quote(str(path)).replace("{", "{{").replace("}", "}}")


def step(notebook, suffix="", cell_hours=2):
    """Shell line that runs one notebook; {params.p} is a JSON object. A cell that runs longer than cell_hours is stopped."""
    return (f"MEDCRYPT_THREADS={{threads}} {quoted(sys.executable)} -m medcrypt.cli.step --notebook {quoted(ROOT / 'nbs' / 'paper' / f'{notebook}.ipynb')}"
            f" --output notebooks/{notebook}{suffix}.ipynb --timeout {3600 * cell_hours} --parameters {{params.p:q}} --expect {{output:q}}")


def of_dataset(wildcards):
    return json.dumps({**COMMON, "dataset": wildcards.dataset}, sort_keys=True)


rule data:
    input: needs("10_data")
    output:
        "work/data/{dataset}.npz", table("data_{dataset}"), figure("figure_examples_{dataset}"), "work/manifest/10_data-{dataset}.json",
        notebook="notebooks/10_data-{dataset}.ipynb",
    params: p=lambda w: json.dumps({**COMMON, "dataset": w.dataset, "settings": json.dumps(config["datasets"][w.dataset], sort_keys=True)}, sort_keys=True)
    threads: 1
    shell: step("10_data", "-{wildcards.dataset}", cell_hours=240)


rule encrypt:
    input: needs("20_encrypt"), "work/data/{dataset}.npz"
    output:
        "work/vault/{dataset}.index.csv", "work/vault/{dataset}.ledger.sqlite", table("vault_{dataset}", "access_{dataset}"), figure("figure_pipeline_{dataset}", "figure_views_{dataset}"), "work/manifest/20_encrypt-{dataset}.json",
        notebook="notebooks/20_encrypt-{dataset}.ipynb",
    params: p=of_dataset
    threads: 1
    shell: step("20_encrypt", "-{wildcards.dataset}", cell_hours=240)  # of a whole collection


rule storage:
    input: needs("25_storage"), expand("work/data/{d}.npz", d=NAMES)
    output: table("table2_storage"), figure("figure_storage"), "work/manifest/25_storage.json", notebook="notebooks/25_storage.ipynb"
    params: p=json.dumps({**ALL, "storage": config["storage"]}, sort_keys=True), fingerprint=config["storage_fingerprint"]
    threads: 1
    shell: step("25_storage")


def spread_fits(wildcards):
    """One step for each model and repetition, where the profile asks for it."""
    return expand(rules.fit.output.fits, dataset=wildcards.dataset, model=MODELS + FINDINGS.get(wildcards.dataset, []), repetition=range(PROFILE.seeds)) if PROFILE.spread else []


rule fit:
    input: needs("28_fit"), "work/data/{dataset}.npz", "work/vault/{dataset}.index.csv"
    output: fits="work/fits/{dataset}/{model}.{repetition}.list.csv", notebook="notebooks/28_fit-{dataset}-{model}-{repetition}.ipynb"
    params: p=lambda w: json.dumps({**COMMON, "dataset": w.dataset, "model": w.model, "repetition": int(w.repetition)}, sort_keys=True)
    threads: 1
    shell: step("28_fit", "-{wildcards.dataset}-{wildcards.model}-{wildcards.repetition}", cell_hours=240)


rule train:
    input: needs("30_train"), "work/data/{dataset}.npz", "work/vault/{dataset}.index.csv", spread_fits
    output:
        "work/predictions/{dataset}.csv", "work/predictions/{dataset}.findings.csv", expand("work/models/{{dataset}}/{m}.keras", m=("masked-cnn", "plain-cnn")), "work/manifest/30_train-{dataset}.json",
        notebook="notebooks/30_train-{dataset}.ipynb",
    params: p=of_dataset
    threads: 1  # more threads change the last digits and hardly the speed of networks this small; data sets run side by side
    priority: 10
    shell: step("30_train", "-{wildcards.dataset}", cell_hours=240)


rule performance:
    input: needs("40_performance"), CLAIMS, expand("work/predictions/{d}.csv", d=NAMES), expand("work/predictions/{d}.findings.csv", d=NAMES), expand("figures/data_{d}.csv", d=NAMES)
    output:
        table("table0_data", "table1_performance", "table1_drop", "table1_hidden", "table1_findings", "table1_ensemble", "table1_plausible", "table1_calibration"),
        figure("figure_roc", "figure_ladder", "figure_ratio", "figure_calibration"), "work/manifest/40_performance.json",
        notebook="notebooks/40_performance.ipynb",
    params: p=json.dumps(ALL, sort_keys=True)
    shell: step("40_performance")


rule ablation:
    input: needs("35_ablation"), expand("work/data/{d}.npz", d=NAMES), expand("work/vault/{d}.index.csv", d=NAMES)
    output: table("table7_ablation"), "work/manifest/35_ablation.json", notebook="notebooks/35_ablation.ipynb"
    params: p=json.dumps(ALL, sort_keys=True)
    threads: 1
    shell: step("35_ablation", cell_hours=240)


rule fidelity:
    input: needs("45_fidelity"), expand("work/data/{d}.npz", d=NAMES), expand("work/vault/{d}.index.csv", d=NAMES), expand("work/predictions/{d}.csv", d=NAMES), expand("work/models/{d}/masked-cnn.keras", d=NAMES)
    output: table("table4_fidelity", "table4_lossy"), figure("figure_fidelity", "figure_lossy"), "work/manifest/45_fidelity.json", notebook="notebooks/45_fidelity.ipynb"
    params: p=json.dumps(ALL, sort_keys=True)
    shell: step("45_fidelity")


rule leakage:
    input: needs("50_leakage"), expand("work/data/{d}.npz", d=NAMES), expand("work/vault/{d}.index.csv", d=NAMES)
    output: table("table3_leakage", "table3_sensitivity", "table3_verdicts"), figure("figure_leakage", "figure_sensitivity", "figure_histograms", "figure_silhouette"), "work/manifest/50_leakage.json", notebook="notebooks/50_leakage.ipynb"
    params: p=json.dumps(ALL, sort_keys=True)
    shell: step("50_leakage")


rule attacks:
    input: needs("55_attacks"), expand("work/data/{d}.npz", d=NAMES), expand("work/models/{d}/plain-cnn.keras", d=NAMES)
    output: table("table8_attacks", "table8_key_reuse"), figure("figure_key_reuse"), figure(*(f"figure_attacks_{n}" for n in NAMES)), "work/manifest/55_attacks.json", notebook="notebooks/55_attacks.ipynb"
    params: p=json.dumps(ALL, sort_keys=True)
    threads: 1
    shell: step("55_attacks", cell_hours=240)


rule disclosure:
    input: needs("57_disclosure"), expand("work/data/{d}.npz", d=NAMES), expand("work/vault/{d}.index.csv", d=NAMES), expand("work/predictions/{d}.csv", d=NAMES), expand("work/models/{d}/{m}.keras", d=NAMES, m=("masked-cnn", "plain-cnn"))
    output: table("table9_length", "table9_identity", "table9_membership"), figure("figure_length", "figure_identity"), "work/manifest/57_disclosure.json", notebook="notebooks/57_disclosure.ipynb"
    params: p=json.dumps(ALL, sort_keys=True)
    threads: 1
    shell: step("57_disclosure", cell_hours=240)


rule frontier:
    input: needs("70_frontier"), expand("work/data/{d}.npz", d=NAMES), [f"figures/{t}.csv" for t in ("table0_data", "table1_performance", "table1_drop", "table8_attacks", "table9_identity")], expand("figures/vault_{d}.csv", d=NAMES)
    output: table("table10_frontier"), figure("figure_frontier"), "figures/frontier.txt", "work/manifest/70_frontier.json", notebook="notebooks/70_frontier.ipynb"
    params: p=json.dumps(ALL, sort_keys=True)
    shell: step("70_frontier")


rule paper_mode:
    input: needs("52_paper_mode")
    output: table("table6_paper_mode"), "work/manifest/52_paper_mode.json", notebook="notebooks/52_paper_mode.ipynb"
    params: p=json.dumps(COMMON, sort_keys=True)
    shell: step("52_paper_mode")


rule latency:
    # all cores, so that nothing else of the chain runs beside the clock
    input: needs("60_latency"), expand("work/data/{d}.npz", d=NAMES), expand("work/models/{d}/{m}.keras", d=NAMES, m=("masked-cnn", "plain-cnn")), expand("work/vault/{d}.index.csv", d=NAMES)
    output: table("table5_latency", "table5_serving", "table5_memory", "table5_scaling"), figure("figure_latency", "figure_scaling"), expand("work/models/{d}/{m}.tflite", d=NAMES, m=("masked-cnn", "plain-cnn")), "work/manifest/60_latency.json", notebook="notebooks/60_latency.ipynb"
    params: p=json.dumps(ALL, sort_keys=True)
    threads: workflow.cores or 1
    shell: step("60_latency")


rule architecture:
    input: needs("80_architecture")
    output: figure("figure1_architecture"), "work/manifest/80_architecture.json", notebook="notebooks/80_architecture.ipynb"
    params: p=json.dumps({"out": "."})
    shell: step("80_architecture")


rule claims:
    input:
        needs("90_claims"), CLAIMS, [f"work/manifest/{n}.json" for n in ("25_storage", "35_ablation", "40_performance", "45_fidelity", "50_leakage", "52_paper_mode", "55_attacks", "57_disclosure", "60_latency", "70_frontier", "80_architecture")],
        expand("work/manifest/{step}-{d}.json", step=("10_data", "20_encrypt", "30_train"), d=NAMES), expand("figures/access_{d}.csv", d=NAMES),
        table0=["figures/" + t + ".csv" for t in ("table0_data", "table1_performance", "table1_drop", "table2_storage", "table3_leakage", "table4_fidelity", "table5_latency", "table8_attacks", "table9_length", "table9_identity", "table9_membership", "table10_frontier")],
        frontier="figures/frontier.txt",
    output:
        table("claims"), figure("figure_claims"), "figures/claims.txt", "figures/manifest.json", "figures/README.md", "work/manifest/90_claims.json",
        notebook="notebooks/90_claims.ipynb",
    params: p=json.dumps(ALL, sort_keys=True)
    shell: step("90_claims")


rule all:
    # everything by name, so that a figure that somebody deleted is made again
    default_target: True
    input:
        expand(rules.data.output, dataset=NAMES), expand(rules.encrypt.output, dataset=NAMES), expand(rules.train.output, dataset=NAMES),
        rules.storage.output, rules.performance.output, rules.ablation.output, rules.fidelity.output, rules.leakage.output, rules.paper_mode.output, rules.attacks.output, rules.disclosure.output, rules.latency.output, rules.frontier.output, rules.architecture.output, rules.claims.output,
