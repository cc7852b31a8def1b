// Validates an AsyncAPI document with AsyncAPI's own parser. The parser leaves two things out for version 3, which are
// done here: each schema is validated by its own rules (Avro, JSON Schema), each example by its message's schemas.
// Usage: node check.mjs FOLDER-OF-PACKAGES FILE|URL
import { createRequire } from 'node:module';

const [packages, source] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { AvroSchemaParser } = require('@asyncapi/avro-schema-parser');
const { Parser, fromFile, fromURL } = require('@asyncapi/parser');
const { default: Ajv } = require('ajv');
const { default: addFormats } = require('ajv-formats');

const SEVERITIES = ['error', 'warning', 'information', 'hint'];
const WORST_ALLOWED = SEVERITIES.indexOf('information');

const avro = AvroSchemaParser();
const parser = new Parser();
parser.registerSchemaParser(avro);
const from = /^https?:/.test(source) ? fromURL : fromFile;
const { document, diagnostics } = await from(parser, source).parse().catch((error) => {
  console.error(`${source}: ${error.message}`);
  process.exit(1);
});

const findings = diagnostics
  .filter(({ severity }) => severity < WORST_ALLOWED)
  .map(({ severity, message, path, range }) =>
    `${source}:${range.start.line + 1}: ${SEVERITIES[severity]}: ${message} (${path.join('.')})`);

const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);

// A function that says what is wrong with a value. The parser has put a JSON Schema into the place of each Avro schema.
async function validator(where, json) {
  const original = json['x-parser-original-payload'];
  const wrong = original ? await avro.validate({ data: original, path: [] }) : [];
  findings.push(...wrong.map(({ message }) => `${where}: ${message}`));
  try {
    const valid = ajv.compile(json.schemaFormat ? json.schema : json);
    return (value) => (valid(value) ? [] : valid.errors.map((error) => `${error.instancePath} ${error.message}`));
  } catch (error) {
    findings.push(`${where}: ${error.message}`);
    return () => [];
  }
}

let examples = 0;
for (const channel of document?.channels() ?? []) {
  for (const message of channel.messages()) {
    const of = `${source}: ${channel.id()}, ${message.id()}`;
    const wrongPayload = await validator(`${of}, payload`, message.payload()?.json() ?? {});
    const wrongHeaders = await validator(`${of}, headers`, message.headers()?.json() ?? {});
    if (message.examples().length === 0) findings.push(`${of}: no example`);
    for (const example of message.examples()) {
      examples += 1;
      const wrong = [
        ...(example.hasPayload() ? wrongPayload(example.payload()).map((text) => `payload${text}`) : []),
        ...(example.hasHeaders() ? wrongHeaders(example.headers()).map((text) => `headers${text}`) : []),
      ];
      findings.push(...wrong.map((text) => `${of}, example ${example.name() ?? ''}: ${text}`));
    }
  }
}

if (findings.length > 0 || !document) {
  console.error(findings.join('\n'));
  process.exit(1);
}
const counts = `${document.channels().length} channels, ${document.operations().length} operations`;
console.log(`${source}: AsyncAPI ${document.version()}, ${counts}, ${examples} examples, all valid`);
