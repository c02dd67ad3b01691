"""How long images take on their way: pull, push, save, load, beside peers and beside writing the files; and the memory it costs."""
import io, os, pathlib, shutil, statistics, subprocess, tarfile, threading, time

DEVNULL = subprocess.DEVNULL
PORT = 5123


class Registry:
    """Debian's registry on a port of this host, with nothing in it."""

    def __init__(self, folder, port):
        self.folder, self.port, self.process = folder / ("registry-%d" % port), port, None

    def start(self):
        config = self.folder.with_suffix(".yml")
        config.write_text("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\n"
                          "http: {addr: '127.0.0.1:%d'}\n" % (self.folder, self.port))
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        deadline = time.monotonic() + 10
        while subprocess.run(["curl", "-sf", "http://127.0.0.1:%d/v2/" % self.port], stdout=DEVNULL).returncode != 0:
            if time.monotonic() > deadline:
                raise RuntimeError("the registry does not answer")
            time.sleep(0.02)
        return self

    def stop(self):
        if self.process:
            self.process.kill(); self.process.wait(); self.process = None

    def empty(self):
        """The same registry with nothing in it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.start()


def layer(number, files):
    """A layer of half-compressible files of a megabyte, as a tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for f in range(files):
            data = os.urandom(340_000) + bytes(660_000)
            data = b"".join(data[i::40] for i in range(40))
            entry = tarfile.TarInfo("l%d/d%d/f%d" % (number, f % 20, f)); entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def written(folder, layers):
    """Seconds that plain `tar` takes to write the files of all layers, two at a time as there are cores, and to sync them."""
    target = folder / "floor"
    target.mkdir()
    os.sync()
    began = time.perf_counter()
    running = []
    for path in layers:
        if len(running) == os.cpu_count():
            running.pop(0).wait()
        running.append(subprocess.Popen(["tar", "-xf", path, "-C", target]))
    for process in running:
        process.wait()
    subprocess.run(["sync", "-f", target], check=True)
    took = time.perf_counter() - began
    shutil.rmtree(target)
    return took


class Peak:
    """The most memory that processes have together while a block runs, in MB above what they had before."""

    def __init__(self, pids):
        self.pids, self.done, self.most = pids, threading.Event(), 0

    def now(self):
        total = 0
        for pid in self.pids:
            try:
                lines = open("/proc/%d/smaps_rollup" % pid).read().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # What is mapped of files is the page cache's.
            total += sum(int(l.split()[1]) for l in lines if l.startswith(("Anonymous:", "Pss_Shmem:")))
        return total / 1024

    def __enter__(self):
        self.before = self.now()
        self.thread = threading.Thread(target=self.watch); self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, self.now())

    def __exit__(self, *_):
        self.done.set(); self.thread.join()
        self.above = max(0, self.most - self.before)


def measure(table, engines, folder, megabytes, archive, timed, call):
    """Adds the rows. Each figure is a median of three; engines take turns, every one works on the same files, and each
    begins with an empty data root, since engines differ in what they keep of images that are gone."""
    layers = []
    for number in range(4):
        layers.append(folder / ("layer-%d.tar" % number))
        layers[-1].write_bytes(layer(number, megabytes // 4))
    image = archive(folder / "big.tar", "bench/big:latest", [path.read_bytes() for path in layers])
    source, target = Registry(folder, PORT).start(), Registry(folder, PORT + 1)
    name, other = "127.0.0.1:%d/big:latest" % PORT, "127.0.0.1:%d/big:latest" % (PORT + 1)
    peaks = {engine.name: 0 for engine in engines}
    rows = {row: {engine.name: [] for engine in engines} for row in ("pull", "push of a pulled image", "save", "load", "push of a loaded image")}
    rows["pull"]["writing the files"] = []

    def step(row, engine, args):
        os.sync()
        with Peak(engine.processes()) as peak:
            rows[row][engine.name].append(timed([*engine.cli, *args]) / 1000)
        peaks[engine.name] = max(peaks[engine.name], peak.above)

    plain = lambda engine: ["--tls-verify=false"] if engine.name == "podman" else []
    saved = folder / "saved.tar"
    try:
        call(["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "docker-archive:%s" % image, "docker://" + name])
        for _ in range(3):
            rows["pull"]["writing the files"].append(written(folder, layers))
            for engine in engines:
                engine.reset()
                step("pull", engine, ["pull", *plain(engine), name])
                target.empty()
                call([*engine.cli, "tag", name, other])
                step("push of a pulled image", engine, ["push", *plain(engine), other])
                step("save", engine, ["save", "-o", saved, name])
                saved.unlink()
                engine.reset()
                step("load", engine, ["load", "-i", image])
                target.empty()
                call([*engine.cli, "tag", "bench/big:latest", other])
                step("push of a loaded image", engine, ["push", *plain(engine), other])
                engine.reset()
    finally:
        source.stop(); target.stop()
    budgets = {"pull": 5}
    for row, values in rows.items():
        table.add("%s, 4 layers, %d MB unpacked" % (row, megabytes), "s", {n: statistics.median(v) for n, v in values.items()}, budgets.get(row))
    table.add("most memory of the daemon above idle in these", "MB", {n: v for n, v in peaks.items() if v}, 64)

