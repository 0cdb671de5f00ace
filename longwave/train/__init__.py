"""Training: plain PyTorch over a `DeviceMesh`, from options to weights that resume bit for bit.

`tasks` holds what can be trained (one file each), `loop` is the loop, `checkpoint` and `record` are what it leaves in
its folder. Imported by the commands when they run, never by `import longwave`.
"""
