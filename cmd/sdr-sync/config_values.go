package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sdr-sync/sdr-sync/pipeline"
)

// Bytes is a size in bytes; as text 1048576, 32MiB or 10MB.
type Bytes int64

// Share is a part of a whole, from 0 to 1; as text 0.01 or 1%.
type Share float64

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// parseValue sets the field behind target from a value of a layer: text, a list, or for a scope a map. Errors quote the value,
// unless it may be a secret.
func parseValue(target, value any) error {
	switch t := target.(type) {
	case *[]string:
		items, err := listOf(value)
		if err != nil {
			return err
		}
		*t = nil
		for _, item := range items {
			text, ok := item.(string)
			if !ok || text == "" {
				return fmt.Errorf("want a list of names, got %s in it", shapeOf(item))
			}
			*t = append(*t, text)
		}
		return nil
	case *[]pipeline.Scope:
		items, err := listOf(value)
		if err != nil {
			return err
		}
		*t = nil
		for _, item := range items {
			scope, err := scopeOf(item)
			if err != nil {
				return err
			}
			*t = append(*t, scope)
		}
		return nil
	}
	text, ok := value.(string)
	if !ok {
		return fmt.Errorf("want one value, got %s", shapeOf(value))
	}
	return parseText(target, text)
}

// parseText sets the field behind target from text.
func parseText(target any, text string) error {
	trimmed := strings.TrimSpace(text)
	var ok bool
	var want string
	switch t := target.(type) {
	case *string:
		*t, ok = text, true
	case *pipeline.Secret:
		*t, ok = pipeline.Secret(text), true
	case *pipeline.Unit:
		*t, ok = pipeline.Unit(trimmed), true
	case *int:
		want = "a whole number"
		n, err := strconv.Atoi(trimmed)
		ok = err == nil
		set(t, n, ok)
	case *float64:
		want = "a number"
		f, err := parseNumber(trimmed)
		ok = err == nil || trimmed == ""
		set(t, f, ok)
	case *Share:
		want = "a share such as 0.01 or 1%"
		s, err := parseShare(trimmed)
		ok = err == nil
		set(t, s, ok)
	case *Bytes:
		want = "a size such as 32MiB, 10MB or 1048576"
		b, err := parseBytes(trimmed)
		ok = err == nil
		set(t, b, ok)
	case *time.Duration:
		want = "a duration such as 7d, 1d12h, 90m or 250ms"
		d, err := parseDuration(trimmed)
		ok = err == nil
		set(t, d, ok)
	case **time.Location:
		want = "a time zone such as UTC or Asia/Shanghai"
		zone, err := time.LoadLocation(trimmed)
		// "Local" depends on the machine, so two machines would disagree about what a day is.
		ok = err == nil && trimmed != "" && trimmed != "Local"
		set(t, zone, ok)
	default:
		panic(fmt.Sprintf("no way to read a %T", target))
	}
	if !ok {
		return fmt.Errorf("want %s, got %q", want, hideUser(text))
	}
	return nil
}

// set assigns value if it is good, so that a field keeps its default otherwise and isn't reported a second time.
func set[T any](target *T, value T, ok bool) {
	if ok {
		*target = value
	}
}

var errNotThat = errors.New("the text is something else")

// parseNumber reads a finite number.
func parseNumber(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, errNotThat
	}
	return f, nil
}

// parseShare reads 0.01 and 1%.
func parseShare(text string) (Share, error) {
	number, percent := strings.CutSuffix(text, "%")
	f, err := parseNumber(strings.TrimSpace(number))
	if err != nil {
		return 0, err
	}
	if percent {
		f /= 100
	}
	return Share(f), nil
}

// parseBytes reads a whole number with an optional unit: powers of 1000 (MB) or of 1024 (MiB).
func parseBytes(text string) (Bytes, error) {
	digits := strings.TrimRight(text, "BbIiKkMmGgTt ")
	units := map[string]int64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}
	unit, ok := units[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, errNotThat
	}
	return Bytes(n * unit), nil
}

// parseDuration reads weeks, days (of 24 hours), and then what time.ParseDuration reads. There is no sign: no duration here is negative.
func parseDuration(text string) (time.Duration, error) {
	if text == "" || strings.ContainsAny(text, "+-") {
		return 0, errNotThat
	}
	var total time.Duration
	rest := text
	for _, unit := range []struct {
		mark   string
		length time.Duration
	}{{"w", week}, {"d", day}} {
		number, after, found := strings.Cut(rest, unit.mark)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > int64((math.MaxInt64-total)/unit.length) {
			return 0, errNotThat
		}
		total += time.Duration(n) * unit.length
		rest = after
	}
	if rest == "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d > math.MaxInt64-total {
		return 0, errNotThat
	}
	return total + d, nil
}

// formatDuration writes what parseDuration reads, without the parts that are zero: 1d12h, not 36h0m0s.
func formatDuration(d time.Duration) string {
	days, rest := d/day, d%day
	text := rest.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	if days == 0 {
		return text
	}
	if rest == 0 {
		text = ""
	}
	return strconv.FormatInt(int64(days), 10) + "d" + text
}

// formatBytes writes what parseBytes reads, in the largest unit that divides b.
func formatBytes(b Bytes) string {
	for _, unit := range []struct {
		mark   string
		length Bytes
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b != 0 && b%unit.length == 0 {
			return strconv.FormatInt(int64(b/unit.length), 10) + unit.mark
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// listOf returns the items of a list; text is a list whose items are separated by commas, as in the environment.
func listOf(value any) ([]any, error) {
	switch v := value.(type) {
	case []any:
		return v, nil
	case string:
		var items []any
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		return items, nil
	}
	return nil, fmt.Errorf("want a list, got %s", shapeOf(value))
}

// scopeOf reads "hcso-213/cn-north-213" or {site: hcso-213, region: cn-north-213}.
func scopeOf(item any) (pipeline.Scope, error) {
	if text, ok := item.(string); ok {
		return pipeline.ParseScope(text)
	}
	fields, ok := item.(map[string]any)
	if !ok {
		return pipeline.Scope{}, fmt.Errorf("want scopes such as {site: hcso-213, region: cn-north-213}, got %s", shapeOf(item))
	}
	var scope pipeline.Scope
	for _, name := range sortedKeys(fields) {
		text, isText := fields[name].(string)
		if !isText && fields[name] != nil {
			return scope, fmt.Errorf("want one value as the %s of a scope, got %s", name, shapeOf(fields[name]))
		}
		switch name {
		case "site":
			scope.Site = text
		case "region":
			scope.Region = text
		default:
			return scope, fmt.Errorf("unknown key %s in a scope: want site and region", name)
		}
	}
	return scope, scope.Validate()
}

// emptyValue writes what stands for "not set" where formatValue writes "".
func emptyValue(target any) string {
	switch target.(type) {
	case *[]string, *[]pipeline.Scope:
		return "[]"
	case *map[string]StreamConfig:
		return "{}"
	}
	return ""
}

// formatValue writes a field as YAML in one line, "" if it is not set. Secrets are written as [secret], which as YAML is a list, so that
// pasting it into a file can't make it a password.
func formatValue(target any) string {
	switch t := target.(type) {
	case *string:
		return yamlText(*t)
	case *pipeline.Secret:
		if *t == "" {
			return ""
		}
		return t.String()
	case *pipeline.Unit:
		return yamlText(string(*t))
	case *int:
		return strconv.Itoa(*t)
	case *float64:
		if *t == 0 {
			return ""
		}
		return strconv.FormatFloat(*t, 'g', -1, 64)
	case *Share:
		return strconv.FormatFloat(float64(*t), 'g', -1, 64)
	case *Bytes:
		return formatBytes(*t)
	case *time.Duration:
		return formatDuration(*t)
	case **time.Location:
		if *t == nil {
			return ""
		}
		return yamlText((*t).String())
	case *[]string:
		var items []string
		for _, item := range *t {
			items = append(items, yamlText(item))
		}
		return flowList(items)
	case *[]pipeline.Scope:
		var items []string
		for _, scope := range *t {
			items = append(items, fmt.Sprintf("{site: %s, region: %s}", yamlText(scope.Site), yamlText(scope.Region)))
		}
		return flowList(items)
	case *map[string]StreamConfig:
		var items []string
		for _, name := range sortedKeys(*t) {
			items = append(items, fmt.Sprintf("%s: {every: %s}", name, formatDuration((*t)[name].Every)))
		}
		if len(items) == 0 {
			return ""
		}
		return "{" + strings.Join(items, ", ") + "}"
	}
	panic(fmt.Sprintf("no way to write a %T", target))
}

func flowList(items []string) string {
	if len(items) == 0 {
		return ""
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// plainYAML matches text that stands for itself in YAML, inside a list too.
var plainYAML = regexp.MustCompile(`^[A-Za-z0-9./]([-A-Za-z0-9._/:+@]*[-A-Za-z0-9._/+@])?$`)

// yamlText writes text as a YAML scalar in one line, "" for empty text.
func yamlText(text string) string {
	if text == "" || plainYAML.MatchString(text) && !strings.EqualFold(text, "null") {
		return text
	}
	return strconv.Quote(text)
}

// hideUser cuts what stands before an @ in a value that an error quotes: it may be a password that somebody put into a URL.
func hideUser(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		return "..." + text[at:]
	}
	return text
}

// shapeOf names what stands where something else was expected, without its content.
func shapeOf(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case string:
		if value == "" {
			return "empty text"
		}
		return "one value"
	case []any:
		return "a list"
	}
	return "keys"
}

// isEmpty tells whether a key or section has nothing behind it.
func isEmpty(value any) bool {
	section, ok := value.(map[string]any)
	return value == nil || ok && len(section) == 0
}

// yamlParser reads the configuration file for koanf. Unlike koanf's own parser it keeps every value as the text that was written: an
// account id of 32 digits would become a float, and 0012 a 10. It also remembers the line of each key, and sees keys given twice.
type yamlParser struct {
	path     string
	lines    map[string]int // key path to the line it stands in, from 1
	problems []error
}

const noReferences = "YAML anchors, aliases and tags are not supported: put a value that begins with &, * or ! in quotes"

// unknownAnchor matches the one error of the YAML library that quotes the file: an unquoted password that begins with *.
var unknownAnchor = regexp.MustCompile(`unknown anchor '.*' referenced`)

// Unmarshal returns the sections of a file as nested maps of text, lists and nil. What is wrong beyond syntax goes to problems.
func (p *yamlParser) Unmarshal(content []byte) (map[string]any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, second yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return map[string]any{}, nil // empty, or nothing but comments
	} else if err != nil {
		if unknownAnchor.MatchString(err.Error()) {
			return nil, fmt.Errorf("%s: %s", p.path, noReferences)
		}
		return nil, fmt.Errorf("%s: %w", p.path, err)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: want one YAML document, got more", p.path)
	}
	root := document.Content[0]
	switch sections := p.value(root, "").(type) {
	case map[string]any:
		return sections, nil
	case nil:
		return map[string]any{}, nil
	default:
		return nil, fmt.Errorf("%s:%d: want sections such as \"sync:\", got %s", p.path, root.Line, shapeOf(sections))
	}
}

// Marshal is not needed: files are written by InitTemplate and Config.Print.
func (p *yamlParser) Marshal(map[string]any) ([]byte, error) {
	return nil, errors.New("write configuration: not supported")
}

func (p *yamlParser) value(node *yaml.Node, path string) any {
	// A password may begin with any of these, and would be cut to something else without a word.
	if node.Kind == yaml.AliasNode || node.Anchor != "" || node.Style&yaml.TaggedStyle != 0 {
		p.problem(node, "%s: %s", path, noReferences)
	}
	switch node.Kind {
	case yaml.MappingNode:
		return p.mapping(node, path)
	case yaml.SequenceNode:
		items := []any{}
		for _, item := range node.Content {
			items = append(items, p.value(item, path))
		}
		return items
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return nil
		}
		return node.Value
	}
	return nil // an alias, which was refused above
}

func (p *yamlParser) mapping(node *yaml.Node, path string) map[string]any {
	values := map[string]any{}
	for pair := range slices.Chunk(node.Content, 2) {
		name, content := pair[0], pair[1]
		key := strings.TrimPrefix(path+"."+name.Value, ".")
		if name.Kind != yaml.ScalarNode || name.Value == "" || strings.Contains(name.Value, ".") {
			p.problem(name, "key %q below %q: want a name without dots; sections are written as keys below keys", name.Value, path)
			continue
		}
		if _, twice := values[name.Value]; twice {
			p.problem(name, "%s stands in the file twice, first in line %d: keep one", key, p.lines[key])
			continue
		}
		p.lines[key] = name.Line
		values[name.Value] = p.value(content, key)
	}
	return values
}

func (p *yamlParser) problem(node *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, fmt.Errorf("%s (file %s:%d)", fmt.Sprintf(format, args...), p.path, node.Line))
}

// where returns "file sdr-sync.yaml:7".
func (p *yamlParser) where(path string) string {
	return fmt.Sprintf("file %s:%d", p.path, p.lines[path])
}
