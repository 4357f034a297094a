"""Scores of pictures that any model drew, in the folders that the official scripts of benchmarks expect.

`base.PictureBenchmark` is what a benchmark says of itself, one file for each; `run.PictureRun` judges a folder.
`python -m project score` is the command.
"""
