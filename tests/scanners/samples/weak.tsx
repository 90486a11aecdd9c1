// Each weak line follows a comment that names what finds it; every other line must stay without findings.
import { execSync } from "node:child_process";

export function run(name: string): void {
  // finds: javascript.child-process-exec
  execSync(`ls ${name}`);
  execSync("make all");
}

export function Page({ text }: { text: string }) {
  // finds: javascript.dangerously-set-inner-html
  return <div dangerouslySetInnerHTML={{ __html: text }} />;
}

export function Good({ text }: { text: string }) {
  return <div>{text}</div>;
}
