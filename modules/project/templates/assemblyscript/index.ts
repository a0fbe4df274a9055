// {{name}} greets whoever sends it, and keeps a line of it in /greetings.txt.
import { Answer, caller, handle, target, text } from "./circles";

export function run(ptr: usize, len: usize): usize {
  return handle(ptr, len, greet);
}

function greet(params: Uint8Array): Answer {
  const greeting = params.length > 0 ? text(params) : "Hello";
  const said = greeting + ", " + caller().name + "!";
  const failure = target().appendText("/greetings.txt", said + "\n");
  if (failure) return Answer.of(failure);
  return Answer.text(said);
}
