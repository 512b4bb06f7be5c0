"""The table of a validation: rows, verdicts, and the time that is left.

A comparison that fails makes the whole fail; a target that is missed is named and does not. What goes wrong in one
measurement is its result, and the others go on. The file of results is written anew after every phase.
"""
import contextlib
import json
import os
import subprocess
import time

# What a row says beside its value.
HELD, FAILED, MET, MISSED, LEFT_OUT, ERROR, TOLD = "held", "FAILED", "met", "MISSED", "left out", "ERROR", ""


class Report:
    def __init__(self, seconds, output=None, about=None):
        self.rows, self.phases, self.numbers, self.about = [], {}, {}, dict(about or {})
        self.end = self.limit = time.monotonic() + seconds
        self.output, self.current = output, ""

    def left(self):
        """Seconds that are left to what runs now."""
        return min(self.end, self.limit) - time.monotonic()

    @contextlib.contextmanager
    def phase(self, name, seconds):
        """Gives what is inside at most so many seconds, keeps its failure to itself, and writes the results."""
        begun = time.monotonic()
        self.limit, self.current = begun + seconds, name
        print(f"== {name}: at most {max(self.left(), 0):.0f} s", flush=True)
        try:
            yield
        except Exception as problem:  # The other phases still have something to say.
            self.add(name, "error", first_line(problem), ERROR)
        finally:
            self.phases[name] = round(time.monotonic() - begun, 1)
            self.limit = self.end
            self.save()

    def add(self, what, value, note="", verdict=TOLD):
        self.rows.append({"phase": self.current, "what": what, "value": value, "note": note, "verdict": verdict})
        # In one piece: several threads add rows.
        print(f"{verdict:8} {what:58} {value:>14}  {note}".rstrip() + "\n", end="", flush=True)

    def compare(self, what, wrong, most, note=""):
        """A relative error and the most that it may be."""
        note = f"at most {most:.0e}" + (f"; {note}" if note else "")
        self.numbers[what] = wrong
        self.add(what, f"{wrong:.1e}", note, HELD if wrong <= most else FAILED)

    def target(self, what, number, met, text, note):
        """A number that is aimed at."""
        self.numbers[what] = number
        self.add(what, text, note, MET if met else MISSED)

    def timed(self, what, seconds, note="", most=None):
        """Seconds of a run, and the most that are aimed at."""
        self.numbers[what] = seconds
        text = f"{seconds:.4f} s"
        if most is None:
            self.add(what, text, note)
        else:
            self.target(what, seconds, seconds <= most, text, "; ".join(filter(None, [note, f"at most {most} s"])))

    def ratio(self, what, theirs, ours, least=None):
        """How much faster ours is, when both were measured, and how much it is aimed at."""
        pair = [self.numbers.get(name) for name in (theirs, ours)]
        if None in pair:
            missing = " and ".join(name for name, number in zip((theirs, ours), pair) if number is None)
            self.add(what, "left out", f"not measured: {missing}", LEFT_OUT)
            return
        number = pair[0] / pair[1]
        if least is None:
            self.add(what, f"{number:.2f} x")
        else:
            self.target(what, number, number >= least, f"{number:.2f} x", f"at least {least} x")

    def step(self, what, work):
        """Runs one measurement; what goes wrong in it is its result, and `None` comes back."""
        if self.left() < 3:
            self.add(what, "left out", "no time", LEFT_OUT)
            return None
        try:
            return work()
        except subprocess.TimeoutExpired:
            self.add(what, "left out", "no time", LEFT_OUT)
        except FileNotFoundError as missing:
            self.add(what, "left out", first_line(missing), LEFT_OUT)
        except subprocess.CalledProcessError as problem:
            lines = (problem.stderr or "").strip().splitlines() or [f"exit code {problem.returncode}"]
            self.add(what, "error", lines[-1], ERROR)
        except Exception as problem:  # The others still have something to say.
            self.add(what, "error", first_line(problem), ERROR)
        return None

    def sound(self):
        return not any(row["verdict"] in (FAILED, ERROR) for row in self.rows)

    def of(self, *verdicts):
        return [row for row in self.rows if row["verdict"] in verdicts]

    def save(self):
        if self.output is None:
            return
        facts = {**self.about, "sound": self.sound(), "phases": self.phases, "numbers": self.numbers, "rows": self.rows}
        beside = self.output.with_name(self.output.name + ".part")
        beside.write_text(json.dumps(facts, indent=2) + "\n")
        os.replace(beside, self.output)

    def summary(self):
        """What has not come out as it should, once more."""
        rows = self.of(FAILED, ERROR, MISSED, LEFT_OUT)
        print(f"== {len(self.of(HELD))} comparisons hold, {len(self.of(MET))} targets are met; the others:" if rows
              else f"== all {len(self.of(HELD))} comparisons hold, all {len(self.of(MET))} targets are met")
        for row in rows:
            print(f"{row['verdict']:8} {row['phase']}: {row['what']}: {row['value']}  {row['note']}")


def first_line(problem):
    return next(iter(str(problem).strip().splitlines()), type(problem).__name__)
