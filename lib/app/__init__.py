"""A page that names signs in a browser, from its camera or a video file; nothing leaves the machine.

`python -m lib.app` builds it and serves it (`make app`). The modules of the page lie beside this file:

- page.js wires the page; look.css is how it looks
- sources.js gives the frames of a camera or a video file, detector.js finds the hands in them, draw.js draws these
- preprocess.js makes of hands what a model reads, picture.js of a picture what a MoViNet does; both are held to
  Python's by tests; model.js runs the model
- watch.js says which sign is shown now, signs.js and own.js know signs of one's own, practice.js asks for signs
- skeletons.py writes, and skeletons.js plays, how signs are made, where the landmarks of training clips are
- sw.js keeps the page for use without a network
"""
