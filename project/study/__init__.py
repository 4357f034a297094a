"""Studies: the same training for several arms and seeds, and the table that compares them.

plan.py         the YAML file: arms, seeds, measures, tables, bars
runs.py         one `fit` for each arm and seed, in processes of their own; resumable
archive.py      the essentials of finished runs in one small file, and back
evaluations.py  what the runs measured, prompt by prompt -> arrays
results.py      that and all else that a report takes from a run folder
report.py       levels, gains and differences with their intervals -> table.json, table.md
figure.py       the same as pictures -> figure.png, or a figure_TABLE.png for each table
compare.py      all of it, from the run folders or the archive of a study
"""
