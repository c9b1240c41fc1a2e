"""Writes digests.txt from the description of the encoding in src/digest.rs, independently of it."""
import hashlib, struct

def n(x): return struct.pack("<I", x)
def blob(x): return n(len(x)) + x
def sha(x): return hashlib.sha256(x).digest()

def head(kind, mode, uid=1, gid=2, xattrs=()):
    out = b"wbuild.tree.1\n" + bytes([kind]) + n(mode) + n(uid) + n(gid) + n(len(xattrs))
    for name, value in sorted(xattrs):
        out += blob(name) + blob(value)
    return out

def directory(head, entries):
    out = head + n(len(entries))
    for name, digest in sorted(entries):
        out += blob(name) + digest
    return sha(out)

def sample(own):
    def file(text): return sha(head(1, 0o644, *own) + struct.pack("<Q", len(text)) + sha(text))
    a, b = file(b"hello"), file(b"")
    dev = sha(head(4, 0o600, *own) + n(1) + n(3))
    link = sha(head(3, 0o777, *own) + blob(b"../a"))
    d = directory(head(2, 0o755, *own), [(b"b", b), (b"link", link)])
    gone = sha(head(8, 0, 0, 0))
    opaque = directory(head(9, 0o700, *own, [(b"user.x", b"1")]), [])
    pipe, sock = sha(head(6, 0o644, *own)), sha(head(7, 0o644, *own))
    first = [(b"a", a), (b"dev", dev), (b"dir", d)]
    every = first + [(b"gone", gone), (b"opaque", opaque), (b"pipe", pipe), (b"sock", sock)]
    return a, dev, link, gone, pipe, sock, first, every

a, dev, link, gone, pipe, sock, first, every = sample((1, 2))
ignored = sample((0, 0))
rows = [
    ("file", a), ("file-ignored", ignored[0]), ("device", dev), ("link", link),
    ("whiteout", gone), ("fifo", pipe), ("socket", sock),
    ("empty-layer", directory(head(2, 0, 0, 0), [])),
    ("layer", directory(head(2, 0, 0, 0), every)),
    ("tree", directory(head(2, 0o755), first)),
    ("tree-ignored", directory(head(2, 0o755, 0, 0), ignored[6])),
]
# A selection from a context: a file whose name counts, and the contents of a directory.
own = (0, 0)
def plain(text): return sha(head(1, 0o644, *own) + struct.pack("<Q", len(text)) + sha(text))
inner = directory(head(2, 0o755, *own), [(b"c", plain(b"C"))])
contents = directory(head(2, 0, 0, 0), [(b"b", plain(b"")), (b"s", inner)])
rows.append(("selection", sha(
    b"wbuild.selection.1\n" + n(2)
    + bytes([1, 0]) + blob(b"a") + plain(b"hello")
    + bytes([3, 0]) + blob(b"") + contents)))
with open(__file__.replace("digests.py", "digests.txt"), "w") as out:
    for name, digest in rows:
        out.write(f"{name} {digest.hex()}\n")
