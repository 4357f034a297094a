"""GenEval: does a picture show the objects, counts, colours and positions that its prompt names?

Source: Ghosh et al., "GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment"
(arXiv 2310.11513), https://github.com/djghosh13/geneval.

**Data.** `evaluation_metadata.jsonl` of that repository (folder `prompts/`): 553 prompts in 6 tags (single_object,
two_object, counting, colors, position, color_attr), one JSON object a line. BAGEL's repository has the same prompts
rewritten at length, `evaluation_metadata_long.jsonl`. `items.read_items` reads either. The id of an item is its place
in the file, in five digits.

**Protocol.** Four pictures a prompt. A detector finds the objects of 80 classes (`detector.Detector`). Those above a
confidence of 0.3 (0.9 for counting) are kept, at most 16 of a class (`detections.kept`). Rules compare them with what
the prompt asks for (`rules.evaluate`); CLIP names colours (`colors.ColorClassifier`).

**Metric.** A picture is correct if all its rules hold. Overall: the unweighted mean over tags of the share of correct
pictures (`summary.score`).

**Quirks of the official scorer.**
- Only the `count` most confident objects of a class count for colour and position.
- Overlapping detections are kept: suppression is switched off (`max_overlap` 1).
- The summary averages over the pictures that are there, and over the tags that are there. Tags are printed in the
  order in which they are met, which is the order of a folder's listing.

**Modes.** `official` does as that. `strict` gives a figure only where every picture of it was scored, so that no
denominator shrinks. The rules of a single picture are the same in both.

**Labels.** Papers use mmdet's Mask2Former. Here it is the checkpoint that transformers has, so its results are called
`geneval-hf`. `detections_file.DetectionsFile` takes detections that mmdet made, and says so.
"""
