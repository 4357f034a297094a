"""Benchmarks that judge pictures in a folder, whoever drew them.

`base.PictureBenchmark` is what a benchmark says of itself, one file for each; `run.PictureRun` judges a folder.
`python -m project score` judges pictures that any model drew; `PublishedBenchmark` draws them, too.
"""
