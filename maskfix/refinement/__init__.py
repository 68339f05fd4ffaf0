"""`maskfix refine`: masks and clicks in, better masks and a report out."""
