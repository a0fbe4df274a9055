// AssemblyScript cannot spell the names of entries: logLines becomes log-lines. What
// exports.ts has for asc alone is not exported.
import { Transform } from "assemblyscript/transform";

const inner = ["abort", "seed", "trace"];

export default class extends Transform {
  afterCompile(module) {
    const { getExportInfo, ExternalFunction } = this.binaryen;
    const found = [];
    for (let i = 0; i < module.getNumExports(); i++) found.push(getExportInfo(module.getExportByIndex(i)));
    for (const { name, value, kind } of found) {
      if (kind !== ExternalFunction) continue;
      const kebab = name.replace(/[A-Z]/g, (c) => "-" + c.toLowerCase());
      if (inner.includes(name)) {
        module.removeExport(name);
      } else if (kebab !== name && !name.startsWith("__")) {
        module.removeExport(name);
        module.addFunctionExport(value, kebab);
      }
    }
  }
}
