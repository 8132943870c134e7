"""What a generator's samples are worth, in numbers: one metric, one file.

Sets against sets, on the features of :mod:`.features`: :mod:`.kid`, :mod:`.fid`, :mod:`.prdc`,
:mod:`.memorisation`. A picture against its true answer: :mod:`.ssim`, :mod:`.psnr`,
:mod:`.perceptual`. What each says, and what it does not: ``docs/generator_metrics.md``.

Tensors stay on the device that they come on; what is handed back are numbers.
"""
