// As much of Node as the script needs.
declare const process: { argv: [string, string, string] };
