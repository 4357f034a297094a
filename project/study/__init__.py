"""Studies: the same training for several arms and seeds, and the table that compares them.

plan.py         the YAML file: arms, seeds, measures, bars
runs.py         one `fit` for each arm and seed, in processes of their own; resumable
archive.py      the essentials of finished runs in one small file, and back
evaluations.py  what the runs measured, prompt by prompt -> arrays
report.py       levels, gains and differences with their intervals -> table.json, table.md
figure.py       the same as a picture -> figure.png
compare.py      all three, from the run folders of a finished study
"""
