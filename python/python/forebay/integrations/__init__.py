"""Adapters to the libraries that train models, and to ``logging``. Each is a module of its own, which imports its library.

==============================  ==========================================================================
``forebay.integrations``        what is there
==============================  ==========================================================================
``.transformers``               ``ForebayCallback``, a ``TrainerCallback`` of Hugging Face
``.lightning``                  ``ForebayLogger``, a ``Logger``; ``TensorBoardLogger``, Lightning's with our writer
``.accelerate``                 ``ForebayTracker``, a ``GeneralTracker``
``.keras``                      ``ForebayCallback``, a ``Callback`` for every backend
``.logging``                    ``ForebayHandler``, a ``logging.Handler``
==============================  ==========================================================================
"""
