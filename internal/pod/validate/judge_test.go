package validate

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// judgeMode makes the test binary a judge for another process: test/oracle is a
// module of its own, at other versions of the Kubernetes modules, and so asks
// for our answers over a pipe.
const judgeMode = "NODEAGENT_JUDGE"

func TestMain(m *testing.M) {
	switch os.Getenv(judgeMode) {
	case "pods":
		if err := judge(os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
	case "fields":
		for _, f := range podSpecFields() {
			os.Stdout.WriteString(f + "\n")
		}
	case "rules":
		list, err := rules()
		if err != nil {
			panic(err)
		}
		for _, r := range list {
			if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
				panic(err)
			}
		}
	default:
		os.Exit(m.Run())
	}
}

// verdict is the answer to one pod.
type verdict struct {
	Pod    *corev1.Pod `json:"pod"`    // after Default
	Errors []string    `json:"errors"` // of Validate
	Static []string    `json:"static"` // of Static
}

// judge answers each line of JSON, a pod, with a line of JSON, a verdict.
func judge(in io.Reader, out io.Writer) error {
	lines, answers := bufio.NewReader(in), json.NewEncoder(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		pod := new(corev1.Pod)
		if err := json.Unmarshal(line, pod); err != nil {
			return err
		}
		Default(pod)
		v := verdict{Pod: pod, Errors: texts(Validate(pod)), Static: texts(Static(pod))}
		if err := answers.Encode(v); err != nil {
			return err
		}
	}
}

func texts(errs field.ErrorList) []string {
	list := make([]string, 0, len(errs))
	for _, e := range errs {
		list = append(list, e.Error())
	}
	return list
}

// podSpecFields lists every field of a PodSpec by its JSON path, with " younger"
// after those that Younger refuses and all below them.
func podSpecFields() []string {
	var paths []string
	var walk func(t reflect.Type, path, mark string)
	walk = func(t reflect.Type, path, mark string) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem(), path, mark)
		case reflect.Struct:
			for f := range t.Fields() {
				switch {
				case !f.IsExported():
				case f.Anonymous:
					walk(f.Type, path, mark)
				default:
					here, mark := path+"."+jsonName(f), mark
					if youngerFields[t.Name()+"."+f.Name] {
						mark = " younger"
					}
					paths = append(paths, here+mark)
					walk(f.Type, here, mark)
				}
			}
		}
	}
	walk(reflect.TypeFor[corev1.PodSpec](), "spec", "")
	return paths
}
