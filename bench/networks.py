"""What networks cost: the first container of many and the last, a bridge against none, and bytes between containers."""
import statistics, subprocess, time

DEVNULL = subprocess.DEVNULL
# Sends for three seconds to whoever connects; the other end counts.
SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 5201))
print("ready", flush=True)
connection, _ = server.accept()
block = b"x" * (1 << 18)
try:
    while True: connection.sendall(block)
except OSError: pass
"""
CLIENT = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 5201))
buffer, got, began = bytearray(1 << 20), 0, time.perf_counter()
while time.perf_counter() - began < 3: got += connection.recv_into(buffer)
print(got / (time.perf_counter() - began) / 1e9)
"""


def started(api, name, image, host):
    """Milliseconds of a start request."""
    made = api.ask("POST", "/containers/create?name=" + name, {
        "Image": image, "Cmd": ["sleep", "36000"], "ExposedPorts": {port: {} for port in host.get("PortBindings", {})},
        "HostConfig": host})
    began = time.perf_counter()
    api.ask("POST", "/containers/%s/start" % made["Id"])
    return (time.perf_counter() - began) * 1000


def attach(table, engines, connect, image, rounds):
    """A start on the default bridge, less one without a network."""
    took = {(engine.name, mode): [] for engine in engines for mode in ("bridge", "none")}
    for n in range(rounds + 2):
        for engine in engines:
            api = connect(engine)
            # Each goes first as often: the kernel still cleans up after the one before.
            for mode in (("bridge", "none"), ("none", "bridge"))[n % 2]:
                ms = started(api, "attach", image(engine), {"NetworkMode": mode})
                api.ask("DELETE", "/containers/attach?force=1")
                time.sleep(0.2)
                if n >= 2:
                    took[engine.name, mode].append(ms)
    median = {key: statistics.median(all) for key, all in took.items()}
    costs = {engine.name: median[engine.name, "bridge"] - median[engine.name, "none"] for engine in engines}
    table.add("start on a bridge, more than without a network", "ms", costs, 8)


def many(table, engines, connect, image, count, work, host, before=None):
    """The last tenth of many containers against the first; peers have a tenth of them."""
    ratios, last = {}, {}
    for engine in engines:
        api = connect(engine)
        if before:
            before(api)
        number = count if engine.name == "berth" else max(count // 10, 20)
        times = [started(api, "many%d" % n, image(engine), host(n)) for n in range(number)]
        part = max(number // 10, 5)
        first, last[engine.name] = statistics.median(times[:part]), statistics.median(times[-part:])
        ratios[engine.name] = last[engine.name] / first
        for n in range(number):
            api.ask("DELETE", "/containers/many%d?force=1" % n)
    table.add("%s, peers a tenth: the last starts" % work, "ms", last)
    table.add("the same against the first", "x", ratios, 1.5)


def throughput(table, engines, connect, image, rounds=3):
    """Gigabytes a second by one connection between two containers of a network."""
    rates = {engine.name: [] for engine in engines}
    for engine in engines:
        api = connect(engine)
        for name in ("sends", "receives"):
            started(api, name, image(engine), {"NetworkMode": "bridge"})
    for _ in range(rounds):
        for engine in engines:
            api = connect(engine)
            sends, receives = (api.ask("GET", "/containers/%s/json" % name) for name in ("sends", "receives"))
            within = lambda one, *words: ["nsenter", "-n", "-t", str(one["State"]["Pid"]), "python3", "-c", *words]
            server = subprocess.Popen(within(sends, SERVER), stdin=DEVNULL, stdout=subprocess.PIPE, text=True)
            server.stdout.readline()
            address = sends["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            answer = subprocess.run(within(receives, CLIENT, address), stdin=DEVNULL, capture_output=True, text=True, check=True)
            rates[engine.name].append(float(answer.stdout))
            server.wait()
    for engine in engines:
        for name in ("sends", "receives"):
            connect(engine).ask("DELETE", "/containers/%s?force=1" % name)
    table.add("bytes between containers", "GB/s", {name: statistics.median(all) for name, all in rates.items()})


def measure(table, engines, connect, image, rounds, count):
    """All rows; `count` containers of Berth."""
    engines = [engine for engine in engines if engine.name != "podman"]
    attach(table, engines, connect, image, rounds)
    throughput(table, engines, connect, image)

    def network(api):
        api.ask("POST", "/networks/create", {"Name": "many", "IPAM": {"Config": [{"Subnet": "10.200.0.0/16"}]}})
    many(table, engines, connect, image, count, "%d containers on one network" % count, lambda n: {"NetworkMode": "many"}, network)
    for engine in engines:
        connect(engine).ask("DELETE", "/networks/many")
    published = lambda n: {"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": str(20000 + n)}]}}
    many(table, engines, connect, image, count, "%d published ports" % count, published)
    ours = [engine for engine in engines if engine.name == "berth"]
    many(table, ours, connect, image, 2 * count, "%d containers on the default network" % (2 * count),
         lambda n: {"NetworkMode": "bridge"})
