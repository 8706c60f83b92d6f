package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

type limits struct {
	MaxCost  *money.Nanos `json:"max_cost" money:"positive"`
	MaxSteps *int64       `json:"max_steps" min:"1" max:"100"`
}

type request struct {
	Name     string            `json:"name" required:"true" minlen:"1" maxlen:"8"`
	Agent    id.Agent          `json:"agent"`
	Mode     string            `json:"mode" enum:"sync,stream"`
	Maybe    *string           `json:"maybe" enum:"a,b"`
	Tools    []string          `json:"tools" maxitems:"2" enum:"bash,python"`
	Limits   *limits           `json:"limits"`
	Metadata map[string]string `json:"metadata"`
	Any      json.RawMessage   `json:"any"`
	Content  content           `json:"content"`
}

type content struct{}

func (content) JSONSchema(b *schema.Builder, d schema.Direction) *schema.Schema {
	return &schema.Schema{OneOf: []*schema.Schema{
		{Type: schema.Types{"string"}, MinLength: schema.Int(1)},
		b.Of(reflect.TypeFor[textBlock](), d),
		b.Of(reflect.TypeFor[imageBlock](), d),
	}}
}

type textBlock struct {
	Type string `json:"type" const:"text" required:"true"`
	Text string `json:"text" required:"true"`
}

type imageBlock struct {
	Type string `json:"type" const:"image" required:"true"`
	Data string `json:"data" required:"true"`
}

func check(t *testing.T, body string) string {
	t.Helper()
	b := schema.NewBuilder()
	s := b.Of(reflect.TypeFor[request](), schema.In)
	v, err := schema.Read([]byte(body))
	require.NoError(t, err)
	var out []string
	for _, f := range b.Validate(s, v, "") {
		out = append(out, f.Pointer+" "+f.Code)
	}
	return strings.Join(out, ", ")
}

func TestEachMistakeHasItsPlaceAndCode(t *testing.T) {
	agent := string(id.New[id.Agent]())
	for body, want := range map[string]string{
		`{"name":"a"}`: "",
		fmt.Sprintf(`{"name":"a","agent":%q,"mode":"sync"}`, agent): "",
		`{"name":"a","maybe":null,"limits":null}`:                   "",
		`{"name":"a","maybe":"b","any":{"x":[1,null]}}`:             "",
		`{"name":"a","content":"hello"}`:                            "",
		`{"name":"a","content":{"type":"text","text":"x"}}`:         "",
		`{}`:                                                       "/name required",
		`{"name":""}`:                                              "/name too_short",
		`{"name":"ninechars"}`:                                     "/name too_long",
		`{"name":"äöüäöüäö"}`:                                      "",
		`{"name":1}`:                                               "/name wrong_type",
		`{"name":"a","Name":"b"}`:                                  "/Name unknown_field",
		`{"name":"a","nme":1,"x/y":2}`:                             "/nme unknown_field, /x~1y unknown_field",
		`{"name":"a","agent":"agt_1"}`:                             "/agent invalid_value",
		`{"name":"a","mode":"both"}`:                               "/mode invalid_value",
		`{"name":"a","mode":null}`:                                 "/mode wrong_type",
		`{"name":"a","maybe":"c"}`:                                 "/maybe invalid_value",
		`{"name":"a","tools":["bash","perl"]}`:                     "/tools/1 invalid_value",
		`{"name":"a","tools":["bash","bash","bash"]}`:              "/tools too_long",
		`{"name":"a","tools":[{"name":"x","input_schema":7}]}`:     "/tools/0 wrong_type",
		`{"name":"a","limits":{"max_steps":0}}`:                    "/limits/max_steps out_of_range",
		`{"name":"a","limits":{"max_steps":-1}}`:                   "/limits/max_steps out_of_range",
		`{"name":"a","limits":{"max_steps":1.5}}`:                  "/limits/max_steps wrong_type",
		`{"name":"a","limits":{"max_steps":99999999999999999999}}`: "/limits/max_steps out_of_range",
		`{"name":"a","limits":{"max_cost":{"amount":"1.00","currency":"USD"}}}`:             "",
		`{"name":"a","limits":{"max_cost":{"amount":"2500","currency":"USD"}}}`:             "/limits/max_cost/amount invalid_money",
		`{"name":"a","limits":{"max_cost":{"amount":"-1.00","currency":"USD"}}}`:            "/limits/max_cost/amount invalid_money",
		`{"name":"a","limits":{"max_cost":{"amount":"0.00","currency":"USD"}}}`:             "/limits/max_cost/amount invalid_money",
		`{"name":"a","limits":{"max_cost":{"amount":"1.00","currency":"EUR"}}}`:             "/limits/max_cost/currency invalid_value",
		`{"name":"a","limits":{"max_cost":{"amount":"9999999999999.00","currency":"USD"}}}`: "/limits/max_cost/amount invalid_money",
		`{"name":"a","limits":{"max_cost":1}}`:                                              "/limits/max_cost invalid_money",
		`{"name":"a","limits":{"max_cost":{"amount":"1.00"}}}`:                              "/limits/max_cost/currency invalid_money",
		`{"name":"a","metadata":{"k":1}}`:                                                   "/metadata/k wrong_type",
		`{"name":"a","content":3}`:                                                          "/content wrong_type",
		`{"name":"a","content":{"type":"video"}}`:                                           "/content/type invalid_value",
		`{"name":"a","content":{"type":"text"}}`:                                            "/content/text required",
		`[]`:                                                                                " wrong_type",
		`null`:                                                                              " wrong_type",
	} {
		require.Equal(t, want, check(t, body), body)
	}
}

func TestReadRefuses(t *testing.T) {
	for _, body := range []string{
		"", " ", "{", `{"a":1,}`, `{"a":1}x`, `{"a":1}{}`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `{"a":"\u0000"}`, `{"\u0000":1}`,
		`{a:1}`, `nul`, `"a`, `[1,]`, `{"a" 1}`, strings.Repeat("[", 100) + strings.Repeat("]", 100), `01`, `+1`,
	} {
		_, err := schema.Read([]byte(body))
		require.True(t, fault.IsCode(err, "invalid_request"), "%q: %v", body, err)
	}
}

// TestAgreesWithAnIndependentValidator holds our checker against another implementation of JSON Schema, on values of every sort in every
// place. Only what JSON Schema can't say (an amount above zero, an amount that fits) may differ, and it is not among the values.
func TestAgreesWithAnIndependentValidator(t *testing.T) {
	b := schema.NewBuilder()
	s := b.Of(reflect.TypeFor[request](), schema.In)
	doc, err := json.Marshal(map[string]any{"$ref": s.Ref, "components": map[string]any{"schemas": b.Defs}})
	require.NoError(t, err)
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("mem:///s.json", parsed))
	other, err := c.Compile("mem:///s.json")
	require.NoError(t, err)

	values := []string{
		`null`, `true`, `1`, `-1`, `0`, `100`, `101`, `1.5`, `""`, `"a"`, `"sync"`, `"bash"`, `"ninechars"`, `[]`, `["bash"]`, `["bash","python","bash"]`, `[1]`,
		`{}`, `{"k":"v"}`, `{"max_steps":1}`, `{"max_steps":0}`, `{"max_steps":"1"}`, `{"x":1}`, `{"type":"text","text":"a"}`, `{"type":"text"}`,
		`{"type":"image","data":"x","text":"y"}`, `{"max_cost":{"amount":"1.00","currency":"USD"}}`, `{"max_cost":{"amount":"1","currency":"USD"}}`,
		`"` + string(id.New[id.Agent]()) + `"`, `"` + string(id.New[id.Session]()) + `"`,
	}
	n := 0
	for _, field := range []string{"name", "agent", "mode", "maybe", "tools", "limits", "metadata", "any", "content", "stranger"} {
		for _, value := range values {
			body := fmt.Sprintf(`{"name":"a",%q:%s}`, field, value)
			if field == "name" {
				body = fmt.Sprintf(`{"name":%s}`, value)
			}
			v, err := schema.Read([]byte(body))
			require.NoError(t, err)
			theirs, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
			require.NoError(t, err)
			ours := len(b.Validate(s, v, "")) == 0
			require.Equal(t, other.Validate(theirs) == nil, ours, body)
			n++
		}
	}
	t.Logf("%d values compared", n)
}

func FuzzReadAndValidate(f *testing.F) {
	f.Add([]byte(`{"name":"a","content":{"type":"text"}}`))
	f.Add([]byte(`{"limits":{"max_cost":{"amount":"1"}}}`))
	b := schema.NewBuilder()
	s := b.Of(reflect.TypeFor[request](), schema.In)
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := schema.Read(body)
		if err != nil {
			if fault.As(err).Kind != fault.Invalid {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q was read and is not JSON", body)
		}
		b.Validate(s, v, "")
	})
}
