"""Speed of training and sampling against PyTorch and Keras: ``python -m benchmarks.speed``.

The process that takes the measurements imports the standard library only. Every framework runs in worker processes of
its own (``worker.py``), one for each network, under the interpreter that has it.
"""
