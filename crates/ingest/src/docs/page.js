"use strict";
// Shows openapi.json beside this page, and runs its operations. Text of the document only ever becomes text nodes.
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

// Paragraphs, with `code` between back-ticks.
const prose = (text) =>
  (text || "")
    .trim()
    .split(/\n\s*\n/)
    .filter(Boolean)
    .map((paragraph) =>
      make(
        "p",
        {},
        ...paragraph.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part)),
      ),
    );

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

// What a `$ref` leads to.
const resolve = (api, value) => {
  const target = value && value.$ref;
  if (!target || !target.startsWith("#/")) return value || {};
  const names = target
    .slice(2)
    .split("/")
    .map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
  return resolve(
    api,
    names.reduce((place, name) => (place || {})[name], api),
  );
};

// The first example of a body or a parameter.
const example = (api, described) => {
  if (described.example !== undefined) return described.example;
  const first = Object.values(described.examples || {})[0];
  if (first !== undefined) return resolve(api, first).value;
  const schema = resolve(api, described.schema);
  return schema.example ?? (schema.examples || [])[0] ?? schema.default;
};

// An input that fits a flow's schema, as far as its types tell.
const sketch = (api, described, depth = 0) => {
  const schema = resolve(api, described);
  const given =
    schema.example ?? (schema.examples || [])[0] ?? schema.default ?? schema.const ?? (schema.enum || [])[0];
  if (given !== undefined) return given;
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object" || schema.properties) {
    const names = Object.keys(schema.properties || {});
    const wanted =
      depth > 3 ? [] : names.filter((name) => depth === 0 || (schema.required || []).includes(name));
    return Object.fromEntries(wanted.map((name) => [name, sketch(api, schema.properties[name], depth + 1)]));
  }
  if (type === "array") return schema.items && depth <= 3 ? [sketch(api, schema.items, depth + 1)] : [];
  if (type === "integer" || type === "number") return schema.minimum ?? 1;
  return type === "boolean" ? false : type === "null" ? null : "text";
};

const fold = (title, value) =>
  make("details", {}, make("summary", { className: "quiet" }, title), make("pre", {}, pretty(value)));

const parameterRows = (api, operation) =>
  (operation.parameters || []).map((one) => {
    const parameter = resolve(api, one);
    const told =
      parameter.in === "header" ? undefined : parameter.in === "path" ? example(api, parameter) : undefined;
    const hint = example(api, parameter);
    const input = make("input", { value: told ?? "", placeholder: hint === undefined ? "" : String(hint) });
    input.setAttribute("aria-label", parameter.name);
    const name = make(
      "td",
      {},
      make("code", {}, parameter.name),
      parameter.required ? " *" : "",
      make("br"),
      make("small", {}, parameter.in),
    );
    return {
      parameter,
      input,
      row: make("tr", {}, name, make("td", {}, input, make("small", {}, ...prose(parameter.description)))),
    };
  });

const bodyForm = (api, operation) => {
  const body = resolve(api, operation.requestBody);
  const kinds = Object.keys(body.content || {});
  if (!kinds.length) return null;
  const kind = make(
    "select",
    { ariaLabel: "Content-Type" },
    ...kinds.map((name) => make("option", {}, name)),
  );
  const text = make("textarea", { spellcheck: false, ariaLabel: "Body" });
  const schema = make("div");
  const fill = () => {
    const described = body.content[kind.value];
    text.value = pretty(example(api, described) ?? sketch(api, described.schema));
    schema.replaceChildren(fold("Schema", resolve(api, described.schema)));
  };
  kind.onchange = fill;
  fill();
  return {
    kind,
    text,
    element: make("div", {}, make("h3", {}, "Body"), ...prose(body.description), kind, text, schema),
  };
};

const request = (base, path, method, rows, body) => {
  const filled = rows.filter(({ input }) => input.value !== "");
  const of = (place) => filled.filter(({ parameter }) => parameter.in === place);
  const address = of("path").reduce(
    (url, { parameter, input }) => url.replace(`{${parameter.name}}`, encodeURIComponent(input.value)),
    path,
  );
  const query = new URLSearchParams(
    of("query").map(({ parameter, input }) => [parameter.name, input.value]),
  ).toString();
  const headers = Object.fromEntries(
    of("header").map(({ parameter, input }) => [parameter.name, input.value]),
  );
  if (key.value.trim() !== "") headers.Authorization = `Bearer ${key.value.trim()}`;
  if (body && body.text.value !== "") headers["Content-Type"] = body.kind.value;
  const url = new URL(base + address + (query ? `?${query}` : ""), location.href).href;
  return {
    url,
    options: {
      method: method.toUpperCase(),
      headers,
      body: body && body.text.value !== "" ? body.text.value : undefined,
    },
  };
};

// The key that a person has typed in. It stays in this page, and goes with each request of it.
const key = make("input", { type: "password", placeholder: "API key or token", ariaLabel: "API key", autocomplete: "off" });

const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
const curl = ({ url, options }) =>
  [
    `curl -i -X ${options.method} ${quoted(url)}`,
    ...Object.entries(options.headers).map(([name, value]) =>
      name === "Authorization" ? '-H "Authorization: Bearer $MEANWHILE_API_KEY"' : `-H ${quoted(`${name}: ${value}`)}`,
    ),
    ...(options.body === undefined ? [] : [`-d ${quoted(options.body)}`]),
  ].join(" \\\n  ");

const run = async (asked, output) => {
  const begun = performance.now();
  const stop = new AbortController();
  const stopper = make("button", { type: "button", onclick: () => stop.abort() }, "Stop");
  output.replaceChildren(make("pre", {}, curl(asked)), stopper);
  try {
    const answer = await fetch(asked.url, { ...asked.options, signal: stop.signal, redirect: "manual" });
    const kind = answer.headers.get("content-type") || "";
    const text = await answer.text();
    let shown = text;
    try {
      if (/json$|json;/.test(kind)) shown = pretty(JSON.parse(text));
    } catch {
      /* Shown as it came. */
    }
    const took = Math.round(performance.now() - begun);
    const headers = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    output.replaceChildren(
      make("pre", {}, curl(asked)),
      make(
        "p",
        { className: answer.ok ? "good" : "bad" },
        `${answer.status || "Redirected"} ${answer.statusText}, ${took} ms`,
      ),
      fold("Headers", headers),
      make("pre", {}, shown),
    );
    output.lastChild.className = "answer";
  } catch (error) {
    output.replaceChildren(
      make("pre", {}, curl(asked)),
      make("p", { className: "bad" }, `No answer: ${error.message}`),
    );
  }
};

const answers = (api, operation) =>
  Object.entries(operation.responses || {}).map(([status, one]) => {
    const response = resolve(api, one);
    const folds = Object.entries(response.content || {}).map(([kind, described]) => {
      const shown = example(api, described);
      return make(
        "div",
        {},
        make("small", {}, kind),
        shown === undefined ? null : fold("Example", shown),
        fold("Schema", resolve(api, described.schema)),
      );
    });
    const headers = Object.keys(response.headers || {});
    return make(
      "tr",
      {},
      make("td", {}, make("code", {}, status)),
      make(
        "td",
        {},
        ...prose(response.description),
        headers.length ? make("small", {}, headers.join(", ")) : null,
        ...folds,
      ),
    );
  });

const operationElement = (api, base, path, method, operation) => {
  const name = make(
    "summary",
    {},
    make("span", { className: "method" }, method),
    make("code", {}, path),
    " ",
    make("span", { className: "quiet" }, operation.summary || ""),
  );
  const element = make("details", { className: "operation", id: operation.operationId }, name);
  // Most are never opened.
  element.addEventListener("toggle", () => {
    if (!element.open || element.childElementCount > 1) return;
    const rows = parameterRows(api, operation);
    const body = bodyForm(api, operation);
    const output = make("div", { ariaLive: "polite" });
    const go = () => run(request(base, path, method, rows, body), output);
    element.append(
      make(
        "div",
        {},
        ...prose(operation.description),
        rows.length ? make("table", {}, ...rows.map(({ row }) => row)) : null,
        body && body.element,
        make("p", {}, make("button", { type: "button", className: "run", onclick: go }, "Run")),
        output,
        make("h3", {}, "Answers"),
        make("table", {}, ...answers(api, operation)),
      ),
    );
  });
  return element;
};

const show = (api) => {
  const base = ((api.servers || [])[0] || { url: "" }).url.replace(/\/$/, "");
  const [nav, main] = [document.querySelector("nav"), document.querySelector("main")];
  const all = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({
      path,
      method,
      operation,
      tag: (operation.tags || ["other"])[0],
    })),
  );
  main.replaceChildren(
    make("h1", {}, `${api.info.title} ${api.info.version}`),
    ...prose(api.info.description),
    make(
      "p",
      {},
      make("a", { href: "openapi.json" }, "openapi.json"),
      ", ",
      make("a", { href: "asyncapi.yaml" }, "asyncapi.yaml"),
      ", ",
      make("a", { href: "problems" }, "problems"),
    ),
  );
  const filter = make("input", { type: "search", placeholder: "Filter", ariaLabel: "Filter" });
  nav.replaceChildren(filter, key);
  const links = [];
  for (const tag of api.tags || []) {
    const own = all.filter((one) => one.tag === tag.name);
    if (!own.length) continue;
    nav.append(make("h2", {}, tag.name));
    main.append(make("h2", {}, tag.name), ...prose(tag.description));
    for (const { path, method, operation } of own) {
      const element = operationElement(api, base, path, method, operation);
      const link = make(
        "a",
        {
          href: `#${operation.operationId}`,
          onclick: () => {
            element.open = true;
          },
        },
        `${method.toUpperCase()} ${path}`,
      );
      links.push({ link, element, text: `${method} ${path} ${operation.summary || ""}`.toLowerCase() });
      nav.append(link);
      main.append(element);
    }
  }
  filter.oninput = () =>
    links.forEach(({ link, element, text }) => {
      link.hidden = element.hidden = !text.includes(filter.value.toLowerCase());
    });
  const chosen = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (chosen) {
    chosen.open = true;
    chosen.scrollIntoView();
  }
};

fetch("openapi.json")
  .then(async (answer) => {
    if (!answer.ok) throw new Error((await answer.json()).detail);
    show(await answer.json());
  })
  .catch((error) => {
    document
      .querySelector("main")
      .replaceChildren(make("p", { className: "bad" }, `openapi.json cannot be read: ${error.message}`));
  });
