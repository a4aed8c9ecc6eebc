"""Sides for the tests of the benchmarks: light, because each process imports this file anew."""

import time


def sleepy(seconds):
    """A side that waits, and knows an answer."""
    return {"sleep": lambda: time.sleep(seconds), "answer": lambda: 42}


def hungry(mebibytes):
    """A side that holds that much memory for a moment."""
    from bench.preprocessing import peak_memory

    return {"hold": lambda: len(bytearray(b"x") * (mebibytes << 20)), "memory": peak_memory}


def nested():
    """A side that counts the operations of a graph with functions that are called with clips of any size."""
    import tensorflow as tf

    from bench.official import nodes
    from lib.models.cost import operations_of

    kernel = tf.zeros((3, 3, 4, 6))
    any_size = [tf.TensorSpec((None, None, None, 4))]
    convolve = tf.function(lambda x: tf.nn.conv2d(x, kernel, 1, "VALID"), input_signature=any_size)
    twice = tf.function(lambda x: convolve(x) + convolve(x + 1))
    graph = twice.get_concrete_function(tf.TensorSpec((1, 9, 9, 4))).graph
    return {"count": lambda: sum(operations_of(*node) for node in nodes(graph))}


def hard_silu():
    """Hard swish and its gradient on TensorFlow."""
    import tensorflow as tf

    from lib.models.layers import hard_silu

    x = tf.linspace(-4.0, 4.0, 33)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = hard_silu(x)
    return {"values": lambda: [y.numpy().tolist(), tape.gradient(y, x).numpy().tolist()]}


def few_frames():
    """The gradient of a convolution over two frames by its kernel, on TensorFlow in bfloat16, summed over channels."""
    import numpy as np
    import tensorflow as tf

    from lib.models.layers import Conv3D

    rng = np.random.default_rng(0)
    layer = Conv3D(64, 3, 1, "same", use_bias=False, dtype="mixed_bfloat16")
    clips = rng.standard_normal((4, 2, 4, 4, 32)).astype(np.float32)
    layer.build(clips.shape)
    layer.set_weights([rng.standard_normal((3, 3, 3, 32, 64)) / 30])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(clips, training=True), tf.float32) ** 2)
    gradient = tape.gradient(loss, layer.kernel.value)
    return {"gradient": lambda: gradient.numpy().sum((3, 4)).tolist()}
