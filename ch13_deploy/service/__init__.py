"""The service: pictures in, classes out. From the outside to the inside:

options (the command line), server (the process), protocol (connections), app (requests), bodies (the pictures in them), pool
(queue and workers), worker (a process with the network), engine (opens a model, answers with it), picture (bytes to pixels).
serve_torchserve, handler and serve_ray run the same engine under other servers; load_generator puts any of them under load.
"""
