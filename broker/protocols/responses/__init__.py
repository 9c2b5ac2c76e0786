"""The Responses API (`/v1`) in the form of Open Responses: a response is a view of an execution.

A response ends where its agent asks. The answer begins the next response, on the same execution. Specification:
https://www.openresponses.org/specification; where it is silent, OpenAI's clients count (`openai` 3.57.0 for Python,
7.59.0 for Node).
"""
