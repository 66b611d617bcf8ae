package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/sdr-sync/sdr-sync/failpoint"
)

// sectionMeaning says in a sentence what a section is about.
func sectionMeaning(section string) string {
	switch section {
	case "iam":
		return "Who asks: the IAM user that tokens are made for."
	case "esm":
		return "What is asked: the metering API, and the sites and regions to pull."
	case "bss":
		return "Yearly and monthly resources. Needed only for streams that come from BSS."
	case "bms":
		return "Bare metal servers. Needed only for streams that come from BMS."
	case "postgres":
		return "The database that records are published to."
	case "parquet":
		return "The Parquet files that are derived from the database."
	case "landing":
		return "The landing files: pages as the vendor sent them."
	case "http":
		return "Limits of the calls to the vendor."
	case "sync":
		return "What a run asks for, and when it gives up."
	case streamsSection:
		return "Further streams."
	}
	panic("no meaning for section " + section)
}

// requirement says who can't do without the key, "" if everybody can.
func (k configKey) requirement() string {
	switch k.need {
	case NeedVendor:
		return "required"
	case NeedBSS:
		return "required for BSS"
	case NeedBMS:
		return "required for BMS"
	}
	return ""
}

// description is the meaning with everything that is known about the value.
func (k configKey) description() string {
	text := k.meaning
	if k.allowed != "" && k.allowed != "a path" {
		text += " Allowed: " + k.allowed + "."
	}
	return text
}

// defaultText is the default as it is written in YAML.
func (k configKey) defaultText() string { return cmp.Or(k.value, emptyValue(k.field(&Config{}))) }

// environmentName is the variable that sets the key.
func (k configKey) environmentName() string {
	if k.path == streamsSection {
		return envPrefix + "STREAMS_<NAME>_EVERY"
	}
	return envName(k.path)
}

// InitTemplate returns the configuration file that `sdr-sync init` writes: every key with its default and meaning, nothing
// set, and no place for a literal secret.
func InitTemplate() string {
	var b strings.Builder
	b.WriteString(`# Configuration of sdr-sync.
#
# Required keys stand open, to be filled in. Every other key is commented out and shows its default: remove the # to change it.
# Each key can also be set in the environment, as the variable named with it; a flag overrides both.
# Durations: 250ms, 90m, 6h, 7d, 1d12h, 2w. Sizes: 1048576, 10MB, 32MiB. Shares: 0.01 or 1%.
`)
	section := ""
	for _, k := range configKeys() {
		indent := "  "
		if k.section() != section {
			section = k.section()
			fmt.Fprintf(&b, "\n# %s\n", sectionMeaning(section))
			if k.path == section {
				indent = ""
			} else {
				fmt.Fprintf(&b, "%s:\n", section)
			}
		}
		text := k.description()
		name, mark := k.name(), "#"
		if k.isSecret() {
			text += " Secret: set " + k.environmentName() + " in the environment, or name a file here that only you can read."
			name += "_file"
		} else {
			text += " [" + k.environmentName() + "]"
		}
		if k.requirement() == "required" && !k.isSecret() {
			mark = ""
		}
		if k.requirement() != "" {
			text += " (" + k.requirement() + ")"
		}
		for _, line := range wrap(text, 110) {
			fmt.Fprintf(&b, "%s# %s\n", indent, line)
		}
		fmt.Fprintln(&b, strings.TrimRight(indent+mark+name+": "+k.defaultText(), " "))
	}
	return b.String()
}

// wrap breaks text at spaces into lines of at most width bytes, where a word allows it.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// Print writes the effective configuration as YAML, with secrets as [secret] and, as comments, where each value came from.
// Without secrets, what it writes is a configuration file of the same effect.
func (c *Config) Print(w io.Writer) error {
	var b strings.Builder
	if c.file == "" {
		b.WriteString("# no configuration file\n")
	} else {
		fmt.Fprintf(&b, "# configuration file %s\n", c.file)
	}
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	section := ""
	for _, k := range configKeys() {
		if k.path == streamsSection {
			c.printStreams(table)
			continue
		}
		if k.section() != section {
			section = k.section()
			fmt.Fprintf(table, "%s:\n", section)
		}
		target := k.field(c)
		printLine(table, "  "+k.name(), cmp.Or(formatValue(target), emptyValue(target)), c.origins[k.path])
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("format configuration: %w", err)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}

func (c *Config) printStreams(w io.Writer) {
	if len(c.Streams) == 0 {
		printLine(w, streamsSection, "{}", "")
		return
	}
	fmt.Fprintf(w, "%s:\n", streamsSection)
	for _, name := range sortedKeys(c.Streams) {
		every := fmt.Sprintf("{every: %s}", formatDuration(c.Streams[name].Every))
		printLine(w, "  "+name, every, c.origins[streamsSection+"."+name+".every"])
	}
}

// printLine writes a key, its value, and where it came from in a column of its own.
func printLine(w io.Writer, name, value, origin string) {
	fmt.Fprintf(w, "%s\t# %s\n", strings.TrimRight(name+": "+value, " "), cmp.Or(origin, "default"))
}

// configDocument returns docs/configuration.md.
func configDocument() string {
	var b strings.Builder
	b.WriteString("# Configuration\n\n" +
		"<!-- Written by: go test ./cmd/sdr-sync -run TestConfigDocument -update -->\n\n" +
		"One YAML file; `sdr-sync init` writes one with every key and its meaning. It is looked for where `--config` says, else where\n" +
		"`SDR_SYNC_CONFIG` says, else at `" + localConfig + "`, else at `" + systemConfig + "`; none is fine if the environment says enough.\n\n" +
		"Every key can be set in the environment too. The environment overrides the file, and a flag overrides both. An empty variable counts\n" +
		"as not set, and so does a key without a value. Unknown keys and unknown `" + envPrefix + "*` variables are errors (exit 2); besides those below,\n" +
		"`" + configEnv + "` (path of the file), `" + todayEnv + "` (the date that a rehearsal takes for today) and `" + failpoint.Env + "` (where a rehearsal\n" +
		"is to be killed, see reliability.md; refused with a real vendor) are known.\n\n" +
		"- Durations: Go's (`250ms`, `90m`, `6h`), with days of 24 hours and weeks before them: `7d`, `1d12h`, `2w`.\n" +
		"- Sizes: bytes, or with a unit: `1048576`, `10MB` (powers of 1000), `32MiB` (powers of 1024).\n" +
		"- Shares: `0.01` or `1%`.\n" +
		"- Lists in the environment are separated by commas: `SDR_SYNC_ESM_SCOPES=hcso-213/cn-north-213,hcso-213/cn-east-264`.\n" +
		"- Paths are relative to the folder that the program is started in. YAML aliases are not supported.\n\n" +
		"A **secret** comes from the environment or from a file, never from a flag: set its variable, or let `<key>_file` in the YAML file, or its\n" +
		"variable with `_FILE` appended, name a file that holds nothing else. Both at once are an error. A secret file that everybody on the\n" +
		"machine can read or change is refused; of a configuration file that holds a secret and that is open in this way `doctor` warns. (Kubernetes and Compose\n" +
		"mount secrets readable by everybody unless told otherwise: set `defaultMode: 0440` or `mode: 0440`.) `[secret]` is what is printed instead.\n")
	section := ""
	for _, k := range configKeys() {
		if k.section() != section {
			section = k.section()
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | default | environment | meaning |\n|---|---|---|---|\n", section, sectionMeaning(section))
		}
		fallback := cmp.Or(k.requirement(), "-")
		if k.defaultText() != "" && k.requirement() == "" {
			fallback = "`" + k.defaultText() + "`"
		}
		text := k.description()
		if k.isSecret() {
			text = "**Secret.** " + text
		}
		path := k.path
		if path == streamsSection {
			path, fallback = path+".<name>.every", "-"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", path, fallback, k.environmentName(), text)
	}
	return b.String()
}
