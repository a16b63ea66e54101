# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Methods side by side
#
# One fine-tune, six methods, one judge. We make a small base model, tune it on texts of five contributors, ask every
# method who helped with some held-out texts, and then retrain without each contributor to see who was right. Nothing is
# downloaded; everything expensive is cached, so the second time is quick.
#
# The model is far smaller than the one of `make demo`, so that this page runs in about a minute. Read the pictures for
# what they show, not for which method is best in general.

# %%
import time

import matplotlib.pyplot as plt
import pandas as pd

import poa
from poa.datanets.installed_docs import general_docs
from poa.evaluation.contributors import leave_one_out
from poa.factory.recipe import LoRARecipe
from poa.factory.tiny import TinyRecipe, tiny_base
from poa.integrations.plots import Measured, agreement_matrix, cost_vs_fidelity, predicted_vs_truth
from poa.pipeline.selection import choose
from poa.pipeline.settings import Select

# %% [markdown]
# ## A base, some data, a run
#
# The base has seen prose about software, but no text of the contributors. `choose` draws texts per contributor and
# keeps near-copies from standing on both sides of the line between training and held-out.

# %%
base = tiny_base(TinyRecipe(vocabulary=1024, width=64, layers=2, heads=4, inner=172, steps=120), general_docs()[:2000])
corpus = poa.datanet("installed-docs")
people = ("numpy.polynomial", "scipy.stats", "sklearn.linear_model", "sklearn.cluster", "networkx.algorithms")
chosen = choose(corpus, Select(contributors=people, records=10, queries=2, responses=0))
print(corpus)
print("train", chosen.train)
print("queries", chosen.queries)

# %%
run = poa.finetune(chosen.train, base=base, recipe=LoRARecipe(rank=4, epochs=3, rate=0.005, checkpoints=2))
ax = plt.subplots(figsize=(5, 2.6), layout="constrained")[1]
ax.plot(run.steps.loss)
ax.set_xlabel("step")
ax.set_ylabel("nats per token")
ax.set_title("training loss", fontsize=10)
# %% [markdown]
# ## Six methods, one interface
#
# A method is a frozen dataclass. `fit` prepares what it needs from the run, `attribute` scores queries. Scores are
# signed: positive means that the record helped. Gradients are computed once and then reused, so we compute them before
# the clock starts: what the last picture compares is the cost of a method beyond them.

# %%
methods = {
    "random": poa.methods.Random(seed=0),
    "bm25": poa.methods.BM25(),
    "repsim": poa.methods.RepSim(),
    "graddot": poa.methods.GradDot(),
    "tracin": poa.methods.TracInCP(),
    "influence": poa.methods.Influence(damping=0.1),
}
poa.methods.TracInCP().fit(run).attribute(chosen.queries)
scores, seconds = {}, {}
for name, method in methods.items():
    start = time.perf_counter()
    scores[name] = method.fit(run).attribute(chosen.queries)
    seconds[name] = time.perf_counter() - start
scores["influence"]

# %% [markdown]
# ## Do they agree with each other?
#
# Rank correlation between the sums per payee, averaged over queries. Agreement is not truth: methods that make the same
# mistake agree as well.

# %%
agreement_matrix(scores)
# %% [markdown]
# ## Who is right?
#
# Truth is retraining: the same recipe again without one contributor at a time, here with two seeds. What a held-out
# text loses is what the contributor gave. The ceiling is the correlation that retraining noise leaves for any method.

# %%
truth = leave_one_out(run, chosen.queries, seeds=(0, 1))
measured = {name: truth.agreement(found) for name, found in scores.items()}
print(f"ceiling {truth.ceiling:.2f}")
pd.DataFrame(truth.mean, truth.query_ids, truth.contributors).round(2)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
predicted_vs_truth(scores["bm25"], truth, axes[0])
predicted_vs_truth(scores["influence"], truth, axes[1])
# %% [markdown]
# ## What does it cost?

# %%
cost_vs_fidelity(
    {name: Measured(seconds[name], found.value, found.low, found.high) for name, found in measured.items()}
)
pd.DataFrame(
    {
        "seconds": seconds,
        "spearman": {name: found.value for name, found in measured.items()},
        "low": {name: found.low for name, found in measured.items()},
        "high": {name: found.high for name, found in measured.items()},
    }
).sort_values("spearman", ascending=False).round(3)

# %% [markdown]
# The intervals are wide: ten texts and five contributors do not rank methods. `poa run experiment=quickstart` uses
# more of both, and pays by a method only after measuring it like this.
