"""What a run needs beside its loss: checkpoints, interrupts, metrics, stored stem features."""
