#!/usr/bin/env bash
# Keras 3.15.1 (here on torch 2.13.0): class_weight, F1Score and AUC with multi-hot labels.
# What it does: (a) fit(class_weight=) turns a multi-hot row into ONE class by argmax: the first present label gives the
# weight of the image, and an image without labels takes the weight of class 0; (b) F1Score() with its default threshold
# keeps only the largest score of an image; (c) AUC cuts [0, 1] into 200 equal steps, so that scores below 0.005, usual for
# a tail class, are one bin: a perfect ranking has ROC AUC 0.5.
# Why it surprises: binary_crossentropy, the metric and the argument are those of the multi-label recipes, and none warns.
# Consequence: the weight of a tail class is not used where a head class is in the image; F1 and AUC of the tail are understated.
# Remedy: weight inside the loss; F1Score(threshold=0.5); AUC(thresholds=quantiles of the scores), or scikit-learn.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6' 'keras==3.15.1'
venv/bin/python - <<'EOF'
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np

model = keras.Sequential([keras.Input((3,)), keras.layers.Activation("sigmoid")])
model.compile(loss="binary_crossentropy", optimizer="sgd")


def weight(row):  # the loss of logits 0 is log 2, times the weight of the image
    history = model.fit(np.zeros((1, 3)), np.array([row], float), class_weight={0: 2.0, 1: 10.0, 2: 100.0}, verbose=0)
    return round(float(history.history["loss"][0] / np.log(2)), 3)


seen = {"tail alone": weight([0, 0, 1]), "head and tail": weight([1, 0, 1]), "no label": weight([0, 0, 0])}
print("expected: head and tail together weigh more than head alone (2), or an error")
print(f"seen: {seen}")
assert list(seen.values()) == [100, 2, 2]

Y, P = np.array([[1, 1, 1.0], [1, 0, 1]]), np.array([[0.9, 0.8, 0.95], [0.9, 0.1, 0.8]])
value = lambda metric, *data: (metric.update_state(*data), metric.result())[1].cpu().numpy().round(3).tolist()
f1 = value(keras.metrics.F1Score(), Y, P)
print(f"expected: F1 {value(keras.metrics.F1Score(threshold=0.5), Y, P)} at 0.5")
print(f"seen: {f1}")
assert f1[1] == 0 and max(f1) < 1
y = np.r_[np.ones(10), np.zeros(990)]
auc = value(keras.metrics.AUC(), y, np.where(y == 1, 0.004, 0.001))
print("expected: ROC AUC 1.0, every positive is above every negative")
print(f"seen: {auc}")
assert auc == 0.5
EOF
