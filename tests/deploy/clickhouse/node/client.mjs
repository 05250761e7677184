// What @clickhouse/client makes of the server at argv[2], as one JSON object on standard output.
import { createClient } from "@clickhouse/client";

const client = createClient({
  url: process.argv[2],
  compression: { request: true, response: true },
  clickhouse_settings: { async_insert: 0 },
});
const table = process.argv[3];
const found = {};

found.ping = (await client.ping()).success;

await client.insert({
  table,
  values: [{ a: 1, s: "조건" }, { a: 2, s: "it's" }],
  format: "JSONEachRow",
});
async function* stream() {
  for (let n = 0; n < 20_000; n++) yield { a: 10 + n, s: `s${n % 7}` };
}
const { Readable } = await import("node:stream");
found.insert = (await client.insert({
  table,
  values: Readable.from(stream()),
  format: "JSONEachRow",
})).summary?.written_rows;

const rows = await client.query({
  query: "SELECT a, s FROM {table:Identifier} WHERE a <= {most:UInt64} ORDER BY a",
  query_params: { table, most: 2 },
  format: "JSONEachRow",
});
found.rows = await rows.json();

let streamed = 0;
const long = await client.query({ query: `SELECT * FROM ${table}`, format: "JSONCompactEachRow" });
for await (const batch of long.stream()) streamed += batch.length;
found.streamed = streamed;

found.json = (await (await client.query({ query: "SELECT 42 AS n", format: "JSON" })).json()).data;
found.command = typeof (await client.command({ query: `CREATE OR REPLACE VIEW ${table}_v AS SELECT 1` })).query_id;
await client.command({ query: `DROP VIEW ${table}_v` });
let csv = "";
for await (const part of (await client.exec({ query: "SELECT 1, 'x' FORMAT CSV" })).stream) csv += part;
found.exec = csv;

const refused = async (work) => {
  try {
    await work();
    return null;
  } catch (error) {
    return { code: error.code, type: error.type, name: error.name };
  }
};
found.unknown = await refused(() => client.query({ query: "SELECT * FROM nowhere" }));
found.middle = await refused(async () => {
  const broken = await client.query({
    query: "SELECT throwIf(number = 900000) FROM numbers(1000000)",
    format: "JSONCompactEachRow",
  });
  for await (const batch of broken.stream()) void batch;
});

const session = createClient({ url: process.argv[2], session_id: `node-${table}` });
await session.command({ query: "CREATE TEMPORARY TABLE mine (a UInt8)" });
await session.command({ query: "SET max_threads = 3" });
found.session = (await (await session.query({ query: "SELECT getSetting('max_threads') AS n", format: "JSONEachRow" })).json())[0].n;
await session.close();

const abort = new AbortController();
const running = client.query({
  query: "SELECT count() FROM numbers(100000000000) WHERE number % 3 = 1",
  query_id: `abort-${table}`,
  abort_signal: abort.signal,
});
const marked = `SELECT count() AS n FROM system.processes WHERE Settings['log_comment'] LIKE '%abort-${table}%'`;
const count = async () => Number((await (await client.query({ query: marked, format: "JSONEachRow" })).json())[0].n);
while ((await count()) !== 1);
abort.abort();
found.aborted = (await running.then(() => null, (error) => error.message)) !== null;
while ((await count()) !== 0);

const killed = refused(() =>
  client.query({ query: "SELECT count() FROM numbers(100000000000) WHERE number % 3 = 1", query_id: `kill-${table}` }),
);
const other = `SELECT count() AS n FROM system.processes WHERE Settings['log_comment'] LIKE '%kill-${table}%'`;
while (Number((await (await client.query({ query: other, format: "JSONEachRow" })).json())[0].n) !== 1);
await client.command({ query: `KILL QUERY WHERE query_id = 'kill-${table}' SYNC` });
found.killed = (await killed).type;

await client.close();
process.stdout.write(JSON.stringify(found));
