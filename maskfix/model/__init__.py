"""The networks, and how to get one with weights.

Read in this order: `network` (what every network takes and returns), `click_maps`, `fusion`; then a
network: `hrnet` with `ocr`, `deeplab`, or `lite`; then `registry` (by name), `checkpoint` (with
weights), `official` (the published files), `initialise` (for training), `inference` and `flops`.
"""
