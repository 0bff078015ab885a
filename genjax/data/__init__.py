"""Where images come from, in which order, and what is done to them before a step sees them.

``sources``    named sources (``digits``, ``tfds``, ``folder``, ``shapes`` and others) behind one small interface
``order``      which examples step *t* sees, a pure function of (seed, *t*); evaluation batches
``augment``    pure functions on uint8 images
``preparing``  from original files to a prepared TFDS set, without a network
"""
