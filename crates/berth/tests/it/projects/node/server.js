// Answers with how long it has been up; with --check, asks another one of its kind.
const http = require("http");
const ms = require("ms");
const port = process.env.PORT;
if (process.argv[2] === "--check") {
  http.get({ port }, (answer) => process.exit(answer.statusCode === 200 ? 0 : 1)).on("error", () => process.exit(1));
} else {
  http.createServer((_, answer) => answer.end(`node, day of ${ms("1d")} ms\n`)).listen(port);
  process.on("SIGTERM", () => process.exit(0));
}
